"""One fault, one call: carried out by a real router over the real gRPC stack, and held to the promises."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from edgewise.core.decision import AttemptRecord
from edgewise.router import AsyncRouter, Decision, FailureKind, RequestError, Seam
from edgewise.router.options import RequestOptions
from edgewise.testing import Script, ScriptedBackend

from .catalogue import FAULTS, ONE_SLOW_STREAM, SECRET, Where, hangs_while_looked_up
from .own_network import observed

BUDGET = 1.5
"""Seconds: enough that a device in reserve does not start before a server that answers has begun to."""

SHORT_BUDGET = 0.6
"""For what lasts until the deadline anyway, so that the run does not."""

SILENT_TO_THE_END = {
    "look-up that hangs, in c-ares",
    "look-up that hangs, in getaddrinfo",
    "accepts, then silence",
    "silence within the TLS handshake",
    "SETTINGS, then silence",
    "no stream allowed",
    "window of zero",
    "GOAWAY, last stream this one",
    "GOAWAY, last stream the largest",
    "slow drip",
    "SIGSTOP when asked",
}

RESOLVERS = {"look-up that hangs, in c-ares": "ares", "look-up that hangs, in getaddrinfo": "native"}
"""gRPC's own resolver for each fault that is met in a network of its own."""

NAMES = (*FAULTS, *RESOLVERS)
"""Every fault's."""

LATE = 0.05
"""Seconds after its deadline by which a request has ended."""

CALLS = ("embed", "stream")
_OURS = ("three ", "four")

_CONFIGURATION = """
version: 1
models:
  tiny: {{source: "file:tiny.gguf"}}
  embedder: {{source: "file:embedder.onnx"}}
  tokenizer: {{source: "file:tokenizer.json"}}
backends:
  cloud:
    kind: grpc
    target: {target}
    location: {{process_in: [NL], store_in: [], operators: [US], evidence: contractual}}
    quality: 0.9
    {more}
  phone: {{kind: llama_cpp, model: tiny, location: device, quality: 0.3}}
  phone-embedder:
    {{kind: onnx, task: embed, model: embedder, tokenizer: tokenizer, location: device, quality: 0.3}}
policy:
  data_classes:
    public: {{process_in: [any]}}
    health: {{process_in: []}}
  default_data_class: health
  defaults: {{order: [quality]}}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. ``text`` is what a stream showed; ``late`` is how many seconds it passed its deadline by."""

    end: str
    cloud: tuple[str, ...]
    answered_by: str | None
    text: str
    seams: tuple[Seam, ...]
    late: float
    leak: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A fault and a call, and what became of it: with a device beside the server, and with the server alone."""

    fault: str
    call: str
    with_device: Outcome
    alone: Outcome

    def line(self) -> str:
        """The row of the table."""
        cells = (self.fault, self.call, _told(self.with_device), _told(self.alone), " and ".join(self.alone.cloud))
        return "| " + " | ".join(cell or "–" for cell in cells) + " |"


async def observe(fault: str, call: str, folder: Path) -> Row:
    """Meet a fault twice: with a device that may answer, and without."""
    if fault in RESOLVERS:
        row = pickle.loads(await observed(fault, call, RESOLVERS[fault], folder))
        assert isinstance(row, Row)
        return row
    return await observe_here(fault, call, folder)


async def observe_here(fault: str, call: str, folder: Path) -> Row:
    """The same within this process."""
    async with (hangs_while_looked_up if fault in RESOLVERS else FAULTS[fault])(folder) as where:
        budget = SHORT_BUDGET if fault in SILENT_TO_THE_END else BUDGET
        async with _router(where, folder) as one, _router(where, folder) as other:
            with_device, alone = await asyncio.gather(
                _ask(one, call, RequestOptions(data_class="public", latency_budget=budget)),
                _ask(other, call, RequestOptions(data_class="public", latency_budget=budget, backend="cloud")),
            )
    return Row(fault, call, with_device, alone)


CROWD = 8
CROWD_BUDGET = 0.9
"""So many calls at once, on so many seconds, at a server that has the time for three of them."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """A call, and what became of several at once: with a device beside the server, and with the server alone."""

    call: str
    with_device: list[Outcome]
    alone: list[Outcome]

    def line(self) -> str:
        """The row of its table."""
        cells = (self.call, *(" or ".join(sorted(set(map(_told, each)))) for each in (self.with_device, self.alone)))
        return "| " + " | ".join(cells) + " |"


async def observe_crowd(call: str, folder: Path) -> Crowd:
    """Meet a server that takes one stream at a time with several calls at once, twice."""
    async with ONE_SLOW_STREAM(folder) as where, _router(where, folder) as router:
        options = RequestOptions(data_class="public", latency_budget=CROWD_BUDGET)
        with_device = await asyncio.gather(*(_ask(router, call, options) for _ in range(CROWD)))
    async with ONE_SLOW_STREAM(folder) as where, _router(where, folder) as router:
        options = RequestOptions(data_class="public", latency_budget=CROWD_BUDGET, backend="cloud")
        alone = await asyncio.gather(*(_ask(router, call, options) for _ in range(CROWD)))
    return Crowd(call, with_device, alone)


@asynccontextmanager
async def _router(where: Where, folder: Path) -> AsyncIterator[AsyncRouter]:
    path = folder / "edgewise.yaml"
    path.write_text(_CONFIGURATION.format(target=where[0], more=where[1]))
    devices = {name: ScriptedBackend(name, Script(words=_OURS)) for name in ("phone", "phone-embedder")}
    async with AsyncRouter.from_yaml(path, backends=devices) as router:
        # Loads what loads on first use, so that the case is not charged for it.
        await router.embed(["nothing"], data_class="health", latency_budget=60.0)
        yield router


async def _ask(router: AsyncRouter, call: str, options: RequestOptions) -> Outcome:
    loop = asyncio.get_running_loop()
    shown: list[str] = []
    decision: Decision | None = None
    texts = ""
    lag = asyncio.create_task(_lag())
    started = loop.time()
    try:
        if call == "embed":
            vectors = await router.embed([SECRET], **options)
            decision = vectors.decision
        else:
            chunks = router.stream(SECRET, max_output_tokens=4, **options)
            async for chunk in chunks:
                shown.append(chunk.text)
                decision = chunk.answer.decision if chunk.answer else None
        end = "answered"
    except RequestError as error:
        end, decision = type(error).__name__, error.decision
        texts = _texts(error)
    took = loop.time() - started
    lag.cancel()
    (lagged,) = await asyncio.gather(lag)
    assert decision is not None
    texts += decision.explain() + json.dumps(decision.to_dict())
    silent = {"preempted": "timed_out"} if end == "DeadlineExceeded" else {}  # who ends it at the deadline is a race
    kinds = [_kind(attempt) for attempt in decision.attempts if attempt.backend == "cloud" and attempt.failure]
    return Outcome(
        end=end,
        cloud=tuple(dict.fromkeys(silent.get(kind, kind) for kind in kinds)),
        answered_by=decision.answered_by,
        text="".join(shown),
        seams=tuple(decision.seams),
        late=took - lagged - decision.latency_budget,
        leak=SECRET in texts,
    )


def _kind(attempt: AttemptRecord) -> str:
    # Whether the link's own probe or the call is first to find out is a race, and the same to the caller.
    if attempt.sentence.startswith("not tried"):
        return FailureKind.UNREACHABLE.value
    return attempt.failure.value if attempt.failure else ""


async def _lag() -> float:
    """How long this machine kept the loop from running, at the worst, until cancelled."""
    loop = asyncio.get_running_loop()
    worst = 0.0
    while True:
        before = loop.time()
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            return worst
        worst = max(worst, loop.time() - before - 0.01)


def _texts(error: BaseException | None) -> str:
    texts = ""
    while error is not None:
        texts += f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    return texts


def _told(outcome: Outcome) -> str:
    if outcome.end != "answered":
        return f"`{outcome.end}`"
    by = "the device" if outcome.answered_by != "cloud" else "the server"
    return f"{by} continues its text" if outcome.seams else f"answered by {by}"
