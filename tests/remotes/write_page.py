"""Makes the calls and writes the tables of docs/protocols.md: ``python -m tests.remotes.write_page``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

from .observed import tables

PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"

_BLOCK = re.compile(r"<!-- (carried|statuses|in band) -->\n.*?<!-- end of \1 -->", re.DOTALL)


def rewritten(page: str, tables: Mapping[str, str]) -> str:
    """The page with its tables as they should be. Raises ``ValueError`` where one has no place, or a second one."""
    if sorted(_BLOCK.findall(page)) != sorted(tables):
        raise ValueError("the page does not have one place for each table")
    return _BLOCK.sub(lambda match: f"<!-- {match[1]} -->\n{tables[match[1]]}\n<!-- end of {match[1]} -->", page)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), asyncio.run(tables())), encoding="utf-8")
