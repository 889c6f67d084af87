"""`edgewise policy test`: cases beside the policy, held to what they expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .ending import ExitCode, examples
from .options import cases_beside, config_option, format_option

if TYPE_CHECKING:
    from ...policies import Policy
    from ..config.cases import CaseSettings


@click.command(
    epilog=examples(
        "edgewise policy test                          # the cases in edgewise.tests.yaml",
        "edgewise policy test -c clinic.yaml --cover   # every rule must match in some case",
        "edgewise policy test more.yaml --format json",
    )
)
@click.argument("cases", metavar="[CASES]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@config_option
@click.option("--cover", is_flag=True, help="Fail where a rule matches in no case.")
@format_option
@click.pass_context
def test(ctx: click.Context, cases: Path | None, path: Path, cover: bool, output: str) -> None:
    """Hold a policy to its cases. CASES is the file beside the configuration, as edgewise.tests.yaml, where absent.

    \b
    cases:
      - name: a finding stays in the practice
        given: {data_class: [health], link: online}
        expect:
          order: [gateway, tablet]
          refused: {cloud: residency}
          reasons: {cloud: permits process_in}

    Exits with 1 where a case fails.
    """
    from ..config import load
    from ..config.cases import load_cases

    policy = load(path).policy
    file = cases or cases_beside(path)
    matched: set[str] = set()
    results = [(case.name, _differences(case, policy, matched)) for case in load_cases(file, policy)]
    uncovered = [rule.name for rule in policy.rules if rule.name not in matched]
    failed = sum(bool(differences) for _, differences in results)
    if output == "json":
        told = [{"name": name, "ok": not differences, "differences": differences} for name, differences in results]
        click.echo(json.dumps({"ok": not failed, "cases": told, "rules_never_matched": uncovered}, indent=2))
    else:
        _show(results, uncovered, len(policy.rules))
    ctx.exit(ExitCode.FAILED if failed or (cover and uncovered) else ExitCode.OK)


def _differences(case: CaseSettings, policy: Policy, matched: set[str]) -> list[str]:
    """What is not as the case expects. Notes the rules that match."""
    from ...core.duration import format_duration
    from ...core.errors import InvalidRequest
    from ..config.cases import facts_of

    facts = facts_of(case.given, policy)
    try:
        plan = policy.plan(facts)
    except InvalidRequest as error:
        return [str(error)]
    matched.update(plan.matched_rules)
    expect = case.expect
    found: list[str] = []

    def compare(what: str, wanted: Any, got: Any) -> None:
        if wanted is not None and wanted != got:
            found.append(f"{what}: expected {_text(wanted)}, got {_text(got)}")

    compare("order", expect.order, tuple(step.backend for step in plan.steps))
    compare("matched", expect.matched, plan.matched_rules)
    refusals = {refusal.backend: refusal for refusal in plan.refusals}
    reasons = {step.backend: step.reason for step in plan.steps}
    reasons |= {name: refusal.sentence for name, refusal in refusals.items()}
    for backend, code in expect.refused.items():
        refusal = refusals.get(backend)
        compare(f"refused {backend}", code.value, "permitted" if refusal is None else refusal.code.value)
    for backend, words in expect.reasons.items():
        if words not in reasons[backend]:
            found.append(f"reasons {backend}: expected {words!r} in {reasons[backend]!r}")
    for what in ("latency_budget", "first_token_budget"):
        wanted, got = getattr(expect, what), getattr(plan, what)
        if wanted is not None and wanted != got:
            shown = "none" if got is None else format_duration(got)
            found.append(f"{what}: expected {format_duration(wanted)}, got {shown}")
    compare("hedge", expect.hedge, plan.hedge)
    compare("queue", expect.queue, policy.may_queue(facts.labels))
    return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _show(results: list[tuple[str, list[str]]], uncovered: list[str], rules: int) -> None:
    for name, differences in results:
        click.echo(f"{'FAILED' if differences else 'ok'}: {name}")
        for line in differences:
            click.echo(f"  {line}")
    for name in uncovered:
        click.echo(f"not covered: rule {name!r} matches in no case")
    failed = sum(bool(differences) for _, differences in results)
    click.echo(f"{len(results) - failed} passed, {failed} failed; {rules - len(uncovered)} of {rules} rules covered")
