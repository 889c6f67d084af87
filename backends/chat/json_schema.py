"""A look into a JSON Schema from outside, whatever it is made of. Runs in the worker."""

from __future__ import annotations

from collections.abc import Iterator


def said_by(keyword: str, schema: object) -> Iterator[object]:
    """What a keyword says anywhere in a schema."""
    unread = [schema]
    while unread:
        match unread.pop():
            case dict() as table:
                if keyword in table:
                    yield table[keyword]
                unread += table.values()
            case list() as items:
                unread += items
