"""The command `edgewise` and its subcommands."""

from __future__ import annotations

import click

from ... import __version__
from .ask import ask
from .check import check
from .demo import demo
from .ending import Commands, examples
from .init import init
from .models import models
from .plan import plan
from .policy import policy
from .queue import queue
from .serve import serve


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "edgewise init                                   # a configuration for this machine",
        "edgewise ask --explain 'Why is the sky blue?'   # an answer, and why it came from there",
        "edgewise plan --data-class health 'A note'      # what would happen, without sending anything",
    ),
)
@click.version_option(__version__, "-V", "--version", prog_name="edgewise")
def edgewise() -> None:
    """Route requests between models on this device and remote gRPC model services, by a policy.

    One YAML file says which backends there are, where each may process and store content, and which rules hold.
    Every command reads edgewise.yaml in this folder unless told otherwise.
    """


for command in (init, ask, plan, check, serve, demo, models, queue):
    edgewise.add_command(command)
edgewise.add_command(policy)


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    edgewise(prog_name="edgewise")
