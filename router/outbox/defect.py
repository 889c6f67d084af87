"""How a defect of ours is told in the log: what it is and where, and none of the content that its text may quote."""

from __future__ import annotations

import traceback


def where(error: Exception) -> str:
    """The error's type, and the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
