"""Writes the table of statuses in protocols.md anew, from the table that the code uses.

``python docs/generate_protocols.py`` rewrites the file; a test compares it.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgewise.backends.grpc.status import KIND_BY_CODE
from edgewise.core.failure import DISPOSITIONS

PAGE = Path(__file__).parent / "protocols.md"

_BLOCK = re.compile(r"<!-- statuses -->\n.*?<!-- end of statuses -->", re.DOTALL)


def rewritten(page: str) -> str:
    """The page with its table as it should be."""
    rows = ["| status | kind | asked again here | another backend is asked |", "| --- | --- | --- | --- |"]
    for code, kind in KIND_BY_CODE.items():
        follows = DISPOSITIONS[kind]
        rows.append(f"| {code.name} | `{kind}` | {_word(follows.retry_here)} | {_word(follows.next_backend)} |")
    table = "\n".join(rows)
    return _BLOCK.sub(f"<!-- statuses -->\n{table}\n<!-- end of statuses -->", page)


def _word(truth: bool) -> str:
    return "yes" if truth else "no"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
