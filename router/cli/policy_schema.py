"""`edgewise policy schema`: the configuration as JSON Schema."""

from __future__ import annotations

import json

import click

from .ending import examples


@click.command(epilog=examples("edgewise policy schema > edgewise.schema.json"))
def schema() -> None:
    """Print the configuration's JSON Schema, so that editors complete it and underline mistakes.

    It knows the kinds of backends that are installed. `check` finds more than a schema can say.
    In an editor with a YAML language server, begin the file with
    `# yaml-language-server: $schema=edgewise.schema.json`.
    """
    from ..config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
