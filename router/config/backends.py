"""The ``backends:`` section: each entry's kind, its own settings, and what all kinds have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ...backends import Backend
from ...backends.models import ModelFile
from ...backends.registry import BackendKind, find_kind, kind_names
from ...core.problem import Path, Problem, Severity
from ...core.settings import Fraction
from ...core.suggestion import one_of
from ...policies.compilation import RESERVED
from ...policies.facts import BackendTerms
from ...policies.places import Places
from .locations import WrittenLocation, build_location
from .reader import INVALID, Invalid, Reader
from .tree import Mark, Node, Scalar, Table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_HALF = Fraction(0.5)


@dataclass(frozen=True, slots=True)
class PriceSettings:
    """What a backend costs."""

    input: Annotated[float, "US dollars per million tokens of the prompt"] = 0.0
    output: Annotated[float, "US dollars per million tokens of the answer"] = 0.0


@dataclass(frozen=True, slots=True)
class CommonSettings:
    """What every backend's section may say, whatever its kind."""

    kind: Annotated[str, "what kind of backend it is, such as llama_cpp, onnx or grpc"]
    location: Annotated[WrittenLocation | None, "`device`, or where content might go"] = None
    quality: Annotated[Fraction, "how good its answers are, from 0 to 1, beside the others'"] = _HALF
    price: Annotated[PriceSettings, "what it costs"] = PriceSettings()
    labels: Annotated[tuple[str, ...], "names that rules may use for it and for others alike"] = ()
    works_offline: Annotated[bool, "it can be reached while the internet cannot, such as a gateway on the LAN"] = False


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One backend of the configuration. ``terms`` is what the policy knows of it."""

    name: str
    kind: BackendKind
    settings: Any  # an instance of kind.settings
    common: CommonSettings
    terms: BackendTerms

    def build(self, models: Mapping[str, ModelFile]) -> Backend:
        """The backend, with nothing opened yet."""
        backend: Backend = self.kind.build(self.name, self.settings, models)
        return backend


@dataclass(frozen=True, slots=True)
class WrittenBackend:
    """An entry as read, before its places are known."""

    name: str
    kind: BackendKind
    settings: Any  # an instance of kind.settings
    common: CommonSettings


class BackendReader:
    """Reads the section's entries. ``extra_kinds`` are known beside the installed ones."""

    def __init__(self, reader: Reader, extra_kinds: Mapping[str, BackendKind]) -> None:
        self._reader = reader
        self._extra_kinds = extra_kinds

    def entries(self, section: Node, mark: Mark) -> list[WrittenBackend | Invalid]:
        """All entries, in the file's order."""
        path: Path = ("backends",)
        if not isinstance(section, Table) or not section.entries:
            self._reader.complain("there is no backend", "add one, as `name: {kind: …}` below `backends:`", mark, path)
            return [INVALID]
        return [self._entry(name, node, at) for name, (at, node) in section.entries.items()]

    def _entry(self, name: str, node: Node, mark: Mark) -> WrittenBackend | Invalid:
        path: Path = ("backends", name)
        if not _NAME.fullmatch(name):
            self._reader.complain(f"{name!r} is no name for a backend", "use letters, digits, - _ .", mark, path)
        if name in RESERVED:
            mend = "give it another name"
            self._reader.complain(f"rules mean something else by {name!r}", mend, mark, path)
        kind = self._kind(node, mark, path)
        if isinstance(kind, Invalid):
            return INVALID
        common, settings = self._reader.sections(node, path, [CommonSettings, kind.settings], mark)
        return INVALID if INVALID in (common, settings) else WrittenBackend(name, kind, settings, common)

    def _kind(self, node: Node, mark: Mark, path: Path) -> BackendKind | Invalid:
        names = sorted({*kind_names(), *self._extra_kinds})
        if not isinstance(node, Table):
            return self._reader.complain("here should be keys with values", "write `kind: …` below it", mark, path)
        if "kind" not in node.entries:
            return self._reader.complain("'kind' is missing", "add `kind: …`; " + one_of("", names), mark, path)
        written = node.entries["kind"][1]
        if not isinstance(written, Scalar):
            return self._reader.complain("here should be a single value", one_of("", names), written.mark, path)
        written.shown = True
        if written.text not in names:
            mend = one_of(written.text, names)
            return self._reader.complain(f"there is no kind {written.text!r}", mend, written.mark, (*path, "kind"))
        return self._extra_kinds.get(written.text) or find_kind(written.text)


def finish(
    written: WrittenBackend, models: Mapping[str, ModelFile], places: Places, problems: list[Problem]
) -> BackendEntry | None:
    """The entry with its terms; ``None`` where its settings cannot be used."""
    path: Path = ("backends", written.name)
    found = [
        Problem(each.sentence, each.mend, (*path, *each.path), each.severity, offset=each.offset)
        for each in written.kind.check(written.settings)
    ]
    common = written.common
    for index, label in enumerate(common.labels):
        if label in RESERVED:
            found.append(Problem(f"rules mean something else by {label!r}", "rename it", (*path, "labels", index)))
    for key, price in (("input", common.price.input), ("output", common.price.output)):
        if price < 0:
            found.append(Problem("a price is zero or more", "write US dollars", (*path, "price", key)))
    # A convention of remote kinds: whoever pins roots does so under `tls`.
    pinned = getattr(getattr(written.settings, "tls", None), "root_certificates", None) is not None
    location = build_location(common.location, written.kind.on_device, pinned, places, (*path, "location"), found)
    problems += found
    if any(problem.severity is Severity.ERROR for problem in found):
        return None
    capabilities = written.kind.build(written.name, written.settings, models).capabilities
    terms = BackendTerms(
        name=written.name,
        location=location,
        tasks=capabilities.tasks,
        remote=not written.kind.on_device,
        quality=common.quality,
        labels=frozenset(common.labels),
        price_input=common.price.input,
        price_output=common.price.output,
        context_tokens=capabilities.context_tokens,
        continues=capabilities.continues,
        constrains=capabilities.constrains,
        logprobs=capabilities.logprobs,
        works_offline=common.works_offline,
        models=capabilities.models,
    )
    return BackendEntry(written.name, written.kind, written.settings, common, terms)
