"""YAML as a tree of texts with positions. Nothing is resolved: ``NO`` is Norway and ``22:00`` is a text.

Read event by event, so that no input makes it recurse, expand or allocate beyond its own size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from ...core.problem import Path

_DEEPEST = 24
_MOST = 20_000
_QUOTED = re.compile(r"'[^'<]{3,}'")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file: line and column, both from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Scalar:
    """One text. ``plain`` is without quotes; ``ends`` is where its text in the file ends.

    ``shown`` is whether messages may quote it: only once it is known to be no secret.
    """

    text: str
    mark: Mark
    ends: Mark
    plain: bool
    shown: bool = False

    def at(self, offset: int) -> Mark:
        """Where a character of the text stands; the scalar's start where line breaks make that a guess."""
        if offset == 0 or self.mark.line != self.ends.line:
            return self.mark
        return Mark(self.mark.line, self.mark.column + offset + (0 if self.plain else 1))

    @property
    def empty(self) -> bool:
        """Whether nothing was written."""
        return self.plain and not self.text


@dataclass(slots=True)
class Listing:
    """A sequence."""

    items: list[Node]
    mark: Mark


@dataclass(slots=True)
class Table:
    """A mapping: each key's mark and value, in the file's order."""

    entries: dict[str, tuple[Mark, Node]]
    mark: Mark


Node = Scalar | Listing | Table


@dataclass(frozen=True, slots=True)
class Complaint:
    """A mistake with its place, before the excerpt is known to be free of secrets."""

    sentence: str
    mend: str
    mark: Mark
    path: Path = ()


class _Unreadable(Exception):
    """The tree ends here; the complaint says why."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.sentence)
        self.complaint = complaint


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text came to. ``tree`` is ``None`` when there is nothing in it, or it cannot be parsed at all.

    ``texts`` are all its values, those included that have no place in the tree.
    """

    tree: Node | None
    complaints: list[Complaint]
    texts: list[Scalar]


def parse(text: str) -> Parsed:
    """The tree and what is wrong with it as YAML."""
    builder = _Builder()
    try:
        tree = builder.document(text)
    except _Unreadable as error:
        return Parsed(None, [*builder.complaints, error.complaint], builder.texts)
    except yaml.MarkedYAMLError as error:
        return Parsed(None, [*builder.complaints, _syntax(error, text)], builder.texts)
    return Parsed(tree, builder.complaints, builder.texts)


def show_all(node: Node) -> None:
    """Let messages quote every text below: there are no secrets among them."""
    if isinstance(node, Scalar):
        node.shown = True
    else:
        inner = node.items if isinstance(node, Listing) else [value for _, value in node.entries.values()]
        for each in inner:
            show_all(each)


def mark_of(tree: Node, path: Path, offset: int = 0) -> Mark:
    """Where a path leads: a text's own place, a collection's key. A path too long stops at what there is."""
    mark = tree.mark
    node = tree
    for part in path:
        if isinstance(node, Table) and part in node.entries:
            mark, node = node.entries[str(part)]
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            mark = node.mark
        else:
            return mark
    return node.at(offset) if isinstance(node, Scalar) and not node.empty else mark


class _Builder:
    def __init__(self) -> None:
        self.complaints: list[Complaint] = []
        self.texts: list[Scalar] = []
        self._count = 0

    def document(self, text: str) -> Node | None:
        """The one document of the text."""
        self._parser: Any = yaml.SafeLoader(text)  # its stubs leave events untyped
        self._next()  # the stream's start
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        tree = self._node(self._next(), (), 0)
        self._next()  # the document's end
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            complaint = Complaint(
                "a second document begins", "keep one document; remove `---`", _mark(event.start_mark)
            )
            raise _Unreadable(complaint)
        return tree

    def _next(self) -> yaml.Event:
        try:
            event: yaml.Event = self._parser.get_event()
        except (ValueError, OverflowError):  # the library leaves both to whoever reads an escape such as "\\U00110000"
            sentence, mend = "there is no such character as this escape names", "write the character itself"
            raise _Unreadable(Complaint(sentence, mend, _mark(self._parser.get_mark()))) from None
        return event

    def _node(self, event: yaml.Event, path: Path, depth: int) -> Node:
        mark = _mark(event.start_mark)
        if depth > _DEEPEST:
            raise _Unreadable(Complaint("nested too deeply", "write it flatter", mark, path))
        self._count += 1
        if self._count > _MOST:
            raise _Unreadable(Complaint(f"more than {_MOST} values", "name the right file", mark, path))
        if isinstance(event, yaml.AliasEvent):
            self._complain("an alias stands for text elsewhere", "write the text out here", mark, path)
            return self._text("", event, plain=False)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            mend = "remove it, or put the value in quotes if it begins with &"
            self._complain("an anchor is of no use without aliases", mend, mark, path)
        self._judge_tag(event, mark, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._text(event.value, event, event.style is None)
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            self._text("", event, plain=False)  # what stands before the bracket may be a secret put in by mistake
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(event, (*path, len(items)), depth + 1))
            return Listing(items, mark)
        table = Table({}, mark)
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            self._entry(table, event, path, depth)
        return table

    def _entry(self, table: Table, event: yaml.Event, path: Path, depth: int) -> None:
        key = self._node(event, path, depth + 1)
        if not isinstance(key, Scalar):
            self._complain("a key must be a single text", "write `key: value`", key.mark, path)
            self._node(self._next(), path, depth + 1)
            return
        key.shown = True
        inner = (*path, key.text)
        value = self._node(self._next(), inner, depth + 1)
        if key.text in table.entries:
            first = table.entries[key.text][0].line
            mend = "remove one of them, or put both into one"
            self._complain(f"the key {key.text!r} is there twice, first on line {first}", mend, key.mark, inner)
        else:
            table.entries[key.text] = (key.mark, value)

    def _text(self, text: str, event: yaml.Event, plain: bool) -> Scalar:
        scalar = Scalar(text, _mark(event.start_mark), _mark(event.end_mark), plain)
        self.texts.append(scalar)
        return scalar

    def _judge_tag(self, event: yaml.Event, mark: Mark, path: Path) -> None:
        tag = getattr(event, "tag", None)
        if tag is None or tag == "!":
            return
        if path[:1] != ("policy",):  # elsewhere it may be a secret, and is not quoted
            self._complain("YAML reads what begins with ! as a tag", "put the value in quotes", mark, path)
            return
        short = tag.replace("tag:yaml.org,2002:", "!!")
        rest = event.value if isinstance(event, yaml.ScalarEvent) else ""
        quoted = "'" + f"{short} {rest}".strip().replace("'", '"') + "'"
        mend = f"remove the tag {short}" if short.startswith("!!") else f"put the value in quotes: {quoted}"
        self._complain(f"YAML reads {short} as a tag, not as text", mend, mark, path)

    def _complain(self, sentence: str, mend: str, mark: Mark, path: Path) -> None:
        self.complaints.append(Complaint(sentence, mend, mark, path))


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Complaint:
    at = error.problem_mark or error.context_mark
    mark = Mark(1, 1) if at is None else _mark(at)
    # More than a character or two in quotes may be part of a secret.
    report = _QUOTED.sub("'…'", f"{error.problem or 'it cannot be read'} {error.context or ''}".rstrip())
    line = (text.split("\n")[mark.line - 1 : mark.line] or [""])[0]
    before = line[: mark.column - 1]
    if "\t" in line[: mark.column] and not before.strip():
        mend = "indent with spaces"
    elif ": !" in before or "- !" in before:
        mend = "a value that begins with ! needs quotes around it"
    elif "${" in line:
        mend = "inside { } a value such as ${NAME} needs quotes around it"
    elif "mapping values are not allowed" in report:
        mend = "put the value in quotes if it has a colon and a space in it; else mind the indentation"
    else:
        mend = "mind brackets, quotes and indentation; put a value with special characters in quotes"
    return Complaint(f"this is not YAML: {report}", mend, mark)


def _mark(at: Any) -> Mark:  # PyYAML has two classes of marks, with and without libyaml, and no common one
    return Mark(at.line + 1, at.column + 1)
