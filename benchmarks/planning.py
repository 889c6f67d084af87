"""How long it takes to decide: facts to plan, in microseconds.

    python benchmarks/planning.py [--requests 20000]

The first line is the case of the design's budget: 20 rules, 5 backends; every request has its own labels and
estimates, the device and the hour change every 100 requests. Then the same with all facts changing at random, so that
little can be remembered, and 500 rules.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice

from edgewise.core.place import DEVICE, Location, Place, PlaceSet
from edgewise.core.price import Price
from edgewise.core.request import Labels, Priority, Task
from edgewise.policies import Policy, compile_policy
from edgewise.policies.facts import BackendFacts, BackendTerms, DeviceFacts, Facts, LinkFacts, LogNormal, Prediction
from edgewise.policies.facts import TimeFacts as Time
from edgewise.policies.settings import DataClassSettings, PolicySettings, RuleSettings
from edgewise.router.config.locations import known_places

CONDITIONS = (
    "request.prompt_tokens > {n}",
    "device.battery_percent < 20 && !device.charging",
    'connectivity.metered && request.priority != "high"',
    "time.hour >= 22 || time.hour < 6",
    'request.task == "embed"',
    '"health" in request.data_classes && request.prompt_tokens < {n}',
    'request.prompt_tokens < {n} && request.priority == "low"',
    "device.load_percent > 90 || device.memory_free_mb < {n}",
    "request.latency_budget < duration('{n}ms')",
    'connectivity.state == "limited" && connectivity.age > duration("{n}s")',
)
ACTIONS = ("prefer", "avoid", "deny", "prefer", "prefer")
NAMES = ("phone", "laptop", "gateway", "cloud-eu", "cloud-us")


def settings(rules: int) -> PolicySettings:
    """A policy of so many rules over all the facts that conditions can read."""
    return PolicySettings(
        data_classes={
            "public": DataClassSettings(process_in=("any",)),
            "personal": DataClassSettings(process_in=("EU", "CH"), operators=("EU", "CH", "US")),
            "health": DataClassSettings(process_in=("DE",)),
        },
        default_data_class="personal",
        rules=tuple(
            RuleSettings(
                name=f"rule {at}",
                when=CONDITIONS[at % len(CONDITIONS)].format(n=(at + 1) * 37),
                **{ACTIONS[at % len(ACTIONS)]: (NAMES[at % len(NAMES)],)},  # type: ignore[arg-type]  # keys vary
            )
            for at in range(rules)
        ),
    )


def terms() -> list[BackendTerms]:
    """Two backends on the device, three beyond it."""
    generates = frozenset({Task.GENERATE})

    def remote(*country_and_operator: str) -> Location:
        there, operator = (PlaceSet.of([Place(each)]) for each in country_and_operator)
        return Location(there, there, operator)

    return [
        BackendTerms("phone", DEVICE, generates, remote=False, quality=0.35),
        BackendTerms("laptop", DEVICE, generates, remote=False, quality=0.45),
        BackendTerms("gateway", remote("DE", "DE"), generates, remote=True, quality=0.6),
        BackendTerms("cloud-eu", remote("NL", "US"), generates, remote=True, quality=0.88, price=Price(output=2.5)),
        BackendTerms("cloud-us", remote("US", "US"), generates, remote=True, quality=0.9, price=Price(output=2.0)),
    ]


def snapshots(count: int, steady: int) -> Iterator[Facts]:
    """So many snapshots; the device and the hour stay as they are for ``steady`` of them."""
    chance = random.Random(7)
    device, hour = DeviceFacts(), Time(0, 0, "monday")

    def one(at: int) -> Facts:
        nonlocal device, hour
        backends = tuple(
            BackendFacts(
                name, Prediction(LogNormal(chance.gauss(-1, 0.5), 0.4), LogNormal(chance.gauss(0.3, 0.5), 0.4))
            )
            for name in NAMES
        )
        labels = Labels(
            Task.GENERATE,
            (chance.choice(("public", "personal", "health")),),
            latency_budget=3.0,
            first_token_budget=0.8,
            max_output_tokens=256,
            prompt_tokens=chance.randrange(4000),
            priority=chance.choice(list(Priority)),
        )
        if at % steady == 0:
            device = DeviceFacts(chance.randrange(100), True, chance.random() < 0.5, chance.randrange(100), 4000)
            hour = Time(chance.randrange(24), chance.randrange(60), "monday")
        return Facts(f"request-{at}", labels, LinkFacts(), device, hour, backends)

    return (one(at) for at in range(count))


def measure(policy: Policy, facts: Iterator[Facts]) -> tuple[float, float]:
    """Median and 99th percentile, in microseconds. Facts are as fresh in memory as they are in a router."""
    times = []
    while chunk := list(islice(facts, 50)):
        for each in chunk:
            begun = time.perf_counter_ns()
            policy.plan(each)
            times.append((time.perf_counter_ns() - begun) / 1e3)
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


def build(rules: int) -> Policy:
    """The policy, compiled."""
    policy, problems = compile_policy(settings(rules), terms(), known_places())
    if policy is None:
        raise SystemExit("\n".join(problem.render() for problem in problems))
    return policy


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    count = parser.parse_args().requests
    for rules, steady, what in ((20, 100, "20 rules"), (20, 1, "20 rules, all facts random"), (500, 100, "500 rules")):
        tracemalloc.start()
        policy = build(rules)
        for each in snapshots(1000, steady):
            policy.plan(each)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        median, slowest = measure(policy, snapshots(count, steady))
        case = f"{what}, {len(NAMES)} backends"
        print(f"p50 {median:.1f} µs   p99 {slowest:.1f} µs   peak {peak / 2**20:.1f} MiB   ({case})")


if __name__ == "__main__":
    main()
