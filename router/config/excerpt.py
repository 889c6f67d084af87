"""A line of the file as messages show it: short, and without any text that is not known to be no secret."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.problem import Position
from .tree import Mark, Scalar

_WIDEST = 120
_HIDDEN = "…"


class Excerpts:
    """Shows lines of one file. ``texts`` are all its values; those that are not ``shown`` by then are hidden."""

    def __init__(self, file: str, text: str, texts: Iterable[Scalar]) -> None:
        self._file = file
        self._lines = text.splitlines()
        self._texts: dict[int, list[Scalar]] = {}
        for each in texts:
            for line in range(each.mark.line, each.ends.line + 1):
                self._texts.setdefault(line, []).append(each)

    def position(self, mark: Mark) -> Position:
        """The place with its line and caret."""
        line = self._lines[mark.line - 1] if 0 < mark.line <= len(self._lines) else ""
        parts: list[str] = []
        read = shown = 0
        caret = min(mark.column, len(line) + 1)
        for start, end in self._hidden(mark.line, len(line)):
            parts += [line[read:start], _HIDDEN]
            if start < mark.column - 1 < end:
                caret = shown + start - read + 1
            shown += start - read + len(_HIDDEN)
            read = end
            if mark.column - 1 >= end:
                caret = shown + mark.column - end
        return self._shortened(mark, "".join([*parts, line[read:]]).replace("\t", " "), caret)

    def before_value(self, mark: Mark) -> Position:
        """The place, where the file could not be parsed and nothing is known: the line up to its first value."""
        line = self._lines[mark.line - 1] if 0 < mark.line <= len(self._lines) else ""
        key, colon, value = line.partition(":")
        if self._section(mark.line) in ("policy", "models"):
            return self._shortened(mark, line.replace("\t", " "), min(mark.column, len(line) + 1))
        if not colon:
            key, value = line[: len(line) - len(line.lstrip())], line.strip()
        line = key + colon + (" " + _HIDDEN if value else "")
        return self._shortened(mark, line.replace("\t", " "), min(mark.column, len(line) + 1))

    def _section(self, number: int) -> str:
        """The top-level key above a line."""
        for line in reversed(self._lines[:number]):
            if line[:1].isalpha():
                return line.partition(":")[0]
        return ""

    def _hidden(self, line: int, width: int) -> list[tuple[int, int]]:
        """The parts of a line that must not be shown, as slices from left to right."""
        spans = []
        for text in self._texts.get(line, ()):
            start = text.mark.column - 1 if line == text.mark.line else 0
            end = text.ends.column - 1 if line == text.ends.line else width
            if start < end and not text.shown:
                spans.append((start, end))
        return sorted(spans)

    def _shortened(self, mark: Mark, line: str, caret: int) -> Position:
        start = max(0, caret - 1 - _WIDEST // 2) if len(line) > _WIDEST else 0
        shown = line[start : start + _WIDEST]
        if start:
            shown = "…" + shown[1:]
        if start + _WIDEST < len(line):
            shown = shown[:-1] + "…"
        return Position(self._file, mark.line, mark.column, shown.rstrip(), caret - start)
