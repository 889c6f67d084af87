"""`edgewise policy`: judge, explain, prove, test and compare policies. Nothing here starts a backend."""

from __future__ import annotations

import click

from .check import check
from .policy_diff import diff
from .policy_explain import explain
from .policy_prove import matrix, prove
from .policy_schema import schema
from .policy_simulate import simulate
from .policy_test import test


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, short_help="Judge, explain, prove, test and compare policies.")
def policy() -> None:
    """Judge, explain, prove, test and compare policies. Nothing is started and nothing is sent."""


for command in (check, explain, matrix, prove, test, diff, simulate, schema):
    policy.add_command(command)
