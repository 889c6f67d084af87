"""`edgewise policy prove` and `matrix`: where content of each data class can ever be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .ending import examples
from .options import config_option, format_option

if TYPE_CHECKING:
    from ...core.place import Evidence, PlaceSet
    from ...policies import Policy
    from ...policies.proof import Bound


@click.command(epilog=examples("edgewise policy matrix", "edgewise policy matrix -c clinic.yaml --format json"))
@config_option
@format_option
def matrix(path: Path, output: str) -> None:
    """Show which data class may go to which backend, and why not.

    'May' is said where some request may go there; what the rules ask for it stands below.
    """
    from ...policies.proof import bound
    from ..config import load

    policy = load(path).policy
    bounds = [bound(policy, (name,)) for name in policy.walls.by_class] or [bound(policy, ())]
    if output == "json":
        cells = [cell for each in bounds for cell in _cells(each, policy)]
        click.echo(json.dumps({"policy_version": policy.version, "cells": cells}, indent=2))
    else:
        _show_matrix(bounds, policy)


@click.command(epilog=examples("edgewise policy prove", "edgewise policy prove -c clinic.yaml --format json"))
@config_option
@format_option
def prove(path: Path, output: str) -> None:
    """Prove where content of each data class can ever be: by any attempt, retry, hedge, fallback or continuation.

    Walls are exact. Each comparison in a rule counts as free, so that 'never' is certain, and 'may' means that it
    cannot be ruled out. Three classes together reach no more than any two of them. `assert:` in the policy turns a
    proof into a condition for loading it.
    """
    from ...policies.proof import NOT_PROVEN
    from ...policies.proof import prove as proven
    from ..config import load

    configuration = load(path)
    policy = configuration.policy
    bounds = proven(policy)
    promises = [
        {"data_class": each.never.data_class, "reaches": list(each.never.reaches)}
        for each in configuration.policy_settings.assert_
    ]
    if output == "json":
        shown = [_bound_as_dict(each) for each in bounds]
        whole = {"policy_version": policy.version, "bounds": shown, "kept": promises, "not_proven": list(NOT_PROVEN)}
        click.echo(json.dumps(whole, indent=2))
        return
    for each in bounds:
        _show_bound(each, policy)
    for promise in promises:
        click.echo(f"kept: content of class {promise['data_class']} never reaches {', '.join(promise['reaches'])}")
    click.echo("not proven:")
    for line in NOT_PROVEN:
        click.echo(f"  {line}")


def _cells(bound: Bound, policy: Policy) -> list[dict[str, Any]]:
    where = {each.backend: each.where for each in bound.reached}
    return [
        {
            "data_class": next(iter(bound.data_classes), None),
            "backend": terms.name,
            "may": terms.name in where,
            "where": where.get(terms.name) or None,
            "why_not": bound.never.get(terms.name),
        }
        for terms in policy.terms
    ]


def _show_matrix(bounds: Sequence[Bound], policy: Policy) -> None:
    from rich.table import Table
    from rich.text import Text

    from .terminal import console

    on = console()
    table = Table("data class", *[terms.name for terms in policy.terms])
    notes: list[str] = []
    for each in bounds:
        cells = _cells(each, policy)
        name = cells[0]["data_class"] or "none" if cells else "none"
        table.add_row(
            name,
            *[
                Text("no", "red") if not cell["may"] else Text("may" if cell["where"] else "yes", "green")
                for cell in cells
            ],
        )
        for cell in cells:
            if not cell["may"]:
                notes.append(f"{name}, {cell['backend']}: no, {cell['why_not']}")
            elif cell["where"]:
                notes.append(f"{name}, {cell['backend']}: may, such as where {cell['where']}")
    on.print(table)
    for note in notes:
        on.print(Text(note), soft_wrap=True)


def _show_bound(bound: Bound, policy: Policy) -> None:
    describe = policy.places.describe
    click.echo(f"content of class {' + '.join(bound.data_classes) or 'none'}")
    for each in bound.reached:
        where = f"; such as where {each.where}" if each.where else ""
        if each.location.on_device:
            click.echo(f"  may be at {each.backend}: this device{where}")
        else:
            at = each.location
            click.echo(
                f"  may be at {each.backend}: processed in {describe(at.process_in)}, "
                f"stored in {describe(at.store_in)}, operated from {describe(at.operators)}, {at.evidence}{where}"
            )
    for backend, why in bound.never.items():
        click.echo(f"  never at {backend}: {why}")
    if bound.evidence:
        click.echo(
            f"  in all: processed in {describe(bound.process_in)}, stored in {describe(bound.store_in)}, "
            f"operated from {describe(bound.operators)}"
        )
        click.echo(f"  weakest evidence: {_weakest(bound.evidence, policy)}")
    elif bound.reached:
        click.echo("  in all: this device and nowhere else")
    click.echo("")


def _weakest(evidence: Mapping[str, Evidence], policy: Policy) -> str:
    from ...core.place import Evidence, Place, PlaceSet

    parts = []
    for level in Evidence:
        names = [name for name, each in evidence.items() if each is level]
        countries = PlaceSet.of(Place(name) for name in names if name in policy.places.countries)
        others = [name for name in names if name not in policy.places.countries]
        words = [*others, policy.places.describe(countries)[1:-1]] if countries.places else others
        if words:
            parts.append(f"{', '.join(words)} {level}")
    return "; ".join(parts)


def _bound_as_dict(bound: Bound) -> dict[str, Any]:
    return {
        "data_classes": list(bound.data_classes),
        "reached": [
            {
                "backend": each.backend,
                "on_device": each.location.on_device,
                "process_in": _names(each.location.process_in),
                "store_in": _names(each.location.store_in),
                "operators": _names(each.location.operators),
                "evidence": str(each.location.evidence),
                "where": each.where or None,
            }
            for each in bound.reached
        ],
        "never": dict(bound.never),
        "process_in": _names(bound.process_in),
        "store_in": _names(bound.store_in),
        "operators": _names(bound.operators),
        "weakest_evidence": {place: str(each) for place, each in bound.evidence.items()},
    }


def _names(places: PlaceSet) -> list[str]:
    return ["any"] if places.anywhere else sorted(map(str, places.places))
