"""The ``backends:`` section: each entry's kind, its own settings, and what all kinds have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from ...backends import Backend
from ...backends.models import ModelFile
from ...backends.registry import BackendKind, find_kind, kind_names
from ...core.errors import EdgewiseError
from ...core.place import Location
from ...core.price import Price
from ...core.problem import Path, Problem
from ...core.settings import Fraction, Seconds
from ...core.suggestion import closest, one_of
from ...policies.compilation import RESERVED
from ...policies.facts import BackendTerms
from ...policies.places import Places
from .locations import WrittenLocation, build_location
from .mistakes import bears_on
from .reader import Reader, stand_in
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
    price: Annotated[PriceSettings | None, "what it costs; without it nothing is reckoned"] = None
    labels: Annotated[tuple[str, ...], "names that rules may use for it and for others alike"] = ()
    works_offline: Annotated[bool, "it can be reached while the internet cannot, such as a gateway on the LAN"] = False
    remembers_keys: Annotated[
        Seconds | None,
        "how long its server answers a repeated idempotency key from memory, such as its `serve.remember`; `0s` where "
        "it does not, and queued requests may run twice there",
    ] = None


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
    """An entry as read, before its places are known. Without its kind nothing is known of its settings."""

    name: str
    kind: BackendKind | None
    settings: Any  # an instance of kind.settings
    common: CommonSettings


_COMMON_KEYS = {(field.name,) for field in fields(CommonSettings)}


class BackendReader:
    """Reads the section's entries. ``extra_kinds`` are known beside the installed ones."""

    def __init__(self, reader: Reader, extra_kinds: Mapping[str, BackendKind]) -> None:
        self._reader = reader
        self._extra_kinds = extra_kinds

    def entries(self, section: Node, mark: Mark) -> list[WrittenBackend]:
        """All entries, in the file's order, each as far as it can be read."""
        path: Path = ("backends",)
        if not isinstance(section, Table) or not section.entries:
            self._reader.complain("there is no backend", "add one, as `name: {kind: …}` below `backends:`", mark, path)
            return []
        kinds = sorted({*kind_names(), *self._extra_kinds})
        return [self._entry(name, node, at, kinds) for name, (at, node) in section.entries.items()]

    def _entry(self, name: str, node: Node, mark: Mark, kinds: Sequence[str]) -> WrittenBackend:
        path: Path = ("backends", name)
        if not _NAME.fullmatch(name):
            self._reader.complain(f"{name!r} is no name for a backend", "use letters, digits, - _ .", mark, path)
        if name in RESERVED:
            mend = "give it another name"
            self._reader.complain(f"rules mean something else by {name!r}", mend, mark, path)
        if not isinstance(node, Table):
            self._reader.complain("here should be keys with values", "write `kind: …` below it", mark, path)
            return WrittenBackend(name, None, None, stand_in(CommonSettings))
        certain, likely = self._kind(node, mark, path, kinds)
        if likely is None:
            # Any key may be the kind's own.
            (common,) = self._reader.sections(node, path, [CommonSettings], mark, closed=False)
            return WrittenBackend(name, None, None, common)
        try:
            kind = self._extra_kinds.get(likely) or find_kind(likely)
        except EdgewiseError as error:
            at = node.entries["kind"][1].mark if certain else mark
            self._reader.complain(str(error), "mend or remove the package that has it", at, (*path, "kind"))
            (common,) = self._reader.sections(node, path, [CommonSettings], mark, closed=False)
            return WrittenBackend(name, None, None, common)
        common, settings = self._reader.sections(node, path, [CommonSettings, kind.settings], mark, whole=certain)
        return WrittenBackend(name, kind if certain else None, settings, common)

    def _kind(self, node: Table, mark: Mark, path: Path, names: Sequence[str]) -> tuple[bool, str | None]:
        """Whether a kind is named, and its name; or the name of the one that is probably meant, by which to read on."""
        path = (*path, "kind")
        if "kind" not in node.entries:
            self._reader.complain("'kind' is missing", "add `kind: …`; " + one_of("", names), mark, path)
            return False, None
        written = node.entries["kind"][1]
        if not isinstance(written, Scalar):
            self._reader.complain("here should be a single value", one_of("", names), written.mark, path)
            return False, None
        written.shown = True
        if written.text in names:
            return True, written.text
        mend = one_of(written.text, names)
        self._reader.complain(f"there is no kind {written.text!r}", mend, written.mark, path)
        return False, closest(written.text, names)


def judge(written: WrittenBackend, places: Places, mistaken: Collection[Path]) -> tuple[Location, list[Problem]]:
    """The entry's location, and what is wrong with its settings. ``mistaken`` are places that could not be read."""
    path: Path = ("backends", written.name)
    own_mistaken = [each for each in mistaken if each[:2] == path and each[2:3] not in _COMMON_KEYS]
    found: list[Problem] = []
    for each in () if written.kind is None else written.kind.check(written.settings):
        at = (*path, *each.path)
        # A kind does not say what its objections rest on.
        if not any(bears_on(mistake, at) for mistake in own_mistaken):
            found.append(replace(each, path=at))
    common = written.common
    for index, label in enumerate(common.labels):
        if label in RESERVED:
            found.append(Problem(f"rules mean something else by {label!r}", "rename it", (*path, "labels", index)))
    for key, price in () if common.price is None else asdict(common.price).items():
        if price < 0:
            found.append(Problem("a price is zero or more", "write US dollars", (*path, "price", key)))
    # A convention of remote kinds: whoever pins roots does so under `tls`.
    pinned = getattr(getattr(written.settings, "tls", None), "root_certificates", None) is not None
    on_device = None if written.kind is None else written.kind.on_device
    location = build_location(common.location, on_device, pinned, places, (*path, "location"), found)
    if written.kind is not None and written.kind.placeless(written.settings) and not location.process_in.anywhere:
        sentence = "this service promises no place: it may process content anywhere"
        where = (*path, "location", "process_in")
        found.append(Problem(sentence, "write `process_in: [any]`, or use a regional service", where))
    if common.remembers_keys and written.kind is not None and not written.kind.sends_keys(written.settings):
        found.append(Problem("it is sent no idempotency keys", "write `0s`", (*path, "remembers_keys")))
    return location, found


def finish(
    written: WrittenBackend, kind: BackendKind, location: Location, models: Mapping[str, ModelFile]
) -> BackendEntry:
    """An entry without mistakes, with its terms."""
    common = written.common
    capabilities = kind.build(written.name, written.settings, models).capabilities
    terms = BackendTerms(
        name=written.name,
        location=location,
        tasks=capabilities.tasks,
        remote=not kind.on_device,
        quality=common.quality,
        labels=frozenset(common.labels),
        price=None if common.price is None else Price(common.price.input, common.price.output),
        context_tokens=capabilities.context_tokens,
        continues=capabilities.continues,
        constrains=capabilities.constrains,
        logprobs=capabilities.logprobs,
        works_offline=common.works_offline,
        models=capabilities.models,
    )
    return BackendEntry(written.name, kind, written.settings, common, terms)
