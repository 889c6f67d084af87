"""One file configures an application: read with positions, judged as a whole, all mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path as FileSystemPath
from typing import Any

from ...backends.models import ModelFile, ModelSettings
from ...backends.registry import BackendKind
from ...core.errors import ConfigurationError, PolicyError
from ...core.problem import Path, Position, Problem, Severity
from ...core.suggestion import one_of
from ...policies import Policy, compile_policy
from ...policies.own_places import read_places
from ...policies.settings import PolicySettings
from ..serving.settings import ServeSettings
from ..serving.settings import check as check_serve
from .backends import BackendEntry, BackendReader, WrittenBackend, finish
from .excerpt import Excerpts
from .locations import known_places
from .reader import INVALID, Invalid, Reader
from .text import LARGEST, decode, read_bytes, unreadable
from .tree import Complaint, Mark, Node, Table, mark_of, parse, show_all

_MOST_TOLD = 200
_SECTIONS = ("version", "models", "backends", "policy", "serve")
_TOP = Mark(1, 1)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration that may be used. ``backends`` stand in the file's order; ``base`` is the file's folder."""

    file: str
    base: FileSystemPath
    models: Mapping[str, ModelFile]
    backends: Mapping[str, BackendEntry]
    serve: ServeSettings
    policy_settings: PolicySettings
    policy: Policy
    warnings: tuple[Problem, ...] = ()


def load(
    path: str | os.PathLike[str],
    *,
    environment: Mapping[str, str] | None = None,
    kinds: Mapping[str, BackendKind] | None = None,
) -> Configuration:
    """The configuration of a file. Raises `ConfigurationError`, or `PolicyError`, with every mistake in it.

    ``environment`` is where ``${NAME}`` is looked up: the process's own when absent. ``kinds`` are known beside the
    installed ones.
    """
    raw = read_bytes(path, "name another file, or write one by `edgewise init`")
    return _read(raw, FileSystemPath(path).absolute().parent, str(path), environment, kinds)


def loads(
    text: str,
    base: str | os.PathLike[str],
    *,
    file: str = "<text>",
    environment: Mapping[str, str] | None = None,
    kinds: Mapping[str, BackendKind] | None = None,
) -> Configuration:
    """The configuration of a text; relative paths count from ``base``. Raises as `load` does."""
    raw = text.encode("utf-8", "surrogatepass")[: LARGEST + 1]
    return _read(raw, FileSystemPath(base).absolute(), file, environment, kinds)


def _read(
    raw: bytes,
    base: FileSystemPath,
    file: str,
    environment: Mapping[str, str] | None,
    kinds: Mapping[str, BackendKind] | None,
) -> Configuration:
    text = decode(raw, file)
    parsed = parse(text)
    tree, complaints = parsed.tree, parsed.complaints
    excerpts = Excerpts(file, text, parsed.texts)
    if tree is None:
        if not complaints:
            raise unreadable(file, "is empty", "write one by `edgewise init`")
        raise _error([_problem(each, excerpts.before_value(each.mark)) for each in complaints])
    reading = _Reading(Reader(base, os.environ if environment is None else environment), base, kinds or {})
    configuration, problems = reading.configuration(file, tree)
    placed = [_problem(each, excerpts.position(each.mark)) for each in (*complaints, *reading.reader.complaints)]
    placed += [replace(each, position=excerpts.position(mark_of(tree, each.path, each.offset))) for each in problems]
    placed.sort(key=lambda each: (each.position.line, each.position.column) if each.position else (0, 0))
    if configuration is None or any(each.severity is Severity.ERROR for each in placed):
        raise _error(placed)
    return replace(configuration, warnings=tuple(placed))


class _Reading:
    """Reads the sections of one tree, each as far as it can be read."""

    def __init__(self, reader: Reader, base: FileSystemPath, kinds: Mapping[str, BackendKind]) -> None:
        self.reader = reader
        self._base = base
        self._kinds = kinds

    def configuration(self, file: str, tree: Node) -> tuple[Configuration | None, list[Problem]]:
        """The configuration, unless something needed is missing, and what judging it as a whole found."""
        if not isinstance(tree, Table):
            self.reader.complain(
                "this is not a configuration", "begin with `version: 1` and `backends:`", tree.mark, ()
            )
            return None, []
        for name, (mark, _) in tree.entries.items():
            if name not in _SECTIONS:
                self.reader.complain(f"there is no section {name!r}", one_of(name, _SECTIONS), mark, (name,))
        self._version(tree)
        models = self._section(tree, "models", Mapping[str, ModelSettings], {})
        serve = self._section(tree, "serve", ServeSettings, ServeSettings())
        settings = self._section(tree, "policy", PolicySettings, PolicySettings())
        model_files = (
            {name: ModelFile(name, each, self._base) for name, each in models.items()}
            if not isinstance(models, Invalid)
            else {}
        )
        self.reader.models = self._model_names(tree)
        mark, section = tree.entries.get("backends", (_TOP, Table({}, _TOP)))
        written = BackendReader(self.reader, self._kinds).entries(section, mark)
        problems = [] if isinstance(serve, Invalid) else _below("serve", check_serve(serve))
        if isinstance(settings, Invalid):
            return None, problems
        places, _ = read_places(settings, known_places())
        backends: dict[str, BackendEntry] = {}
        for each in () if isinstance(models, Invalid) else written:
            if isinstance(each, WrittenBackend):
                entry = finish(each, model_files, places, problems)
                if entry is not None:
                    backends[entry.name] = entry
        terms = [entry.terms for entry in backends.values()]
        policy, found = compile_policy(settings, terms, known_places(), date.today())
        complete = len(backends) == len(written)
        problems += _below("policy", [each for each in found if complete or _holds_without_backends(each)])
        if policy is None or isinstance(serve, Invalid) or not complete:
            return None, problems
        return Configuration(file, self._base, model_files, backends, serve, settings, policy), problems

    def _version(self, tree: Table) -> None:
        if "version" not in tree.entries:
            self.reader.complain("'version' is missing", "begin with `version: 1`", _TOP, ())
            return
        mark, node = tree.entries["version"]
        if self.reader.value(int, node, ("version",), mark) not in (1, INVALID):
            self.reader.complain("this version is not known", "write `version: 1`", node.mark, ("version",))

    def _section(self, tree: Table, name: str, kind: Any, missing: Any) -> Any:
        if name not in tree.entries:
            return missing
        mark, node = tree.entries[name]
        if name in ("policy", "models"):
            show_all(node)
        return self.reader.value(kind, node, (name,), mark)

    def _model_names(self, tree: Table) -> Sequence[str]:
        """The names as written: a model with a mistake in it is still there to be named."""
        node = tree.entries["models"][1] if "models" in tree.entries else None
        return list(node.entries) if isinstance(node, Table) else []


def _holds_without_backends(problem: Problem) -> bool:
    """Whether a policy's problem stands even where some backends could not be read: it is not about their names."""
    in_list = problem.path[:1] == ("rules",) and problem.path[2:3] in (("prefer",), ("avoid",), ("deny",), ("only",))
    return problem.severity is Severity.ERROR and not in_list


def _below(section: str, problems: Sequence[Problem]) -> list[Problem]:
    return [replace(each, path=(section, *each.path)) for each in problems]


def _problem(complaint: Complaint, position: Position) -> Problem:
    return Problem(complaint.sentence, complaint.mend, complaint.path, position=position)


def _error(problems: Sequence[Problem]) -> ConfigurationError:
    errors: list[Path] = [each.path for each in problems if each.severity is Severity.ERROR]
    in_policy = bool(errors) and all(path[:1] == ("policy",) for path in errors)
    if len(problems) > _MOST_TOLD:
        rest = Problem(f"and {len(problems) - _MOST_TOLD} more", "mend these first", position=problems[-1].position)
        problems = [*problems[:_MOST_TOLD], rest]
    return PolicyError(problems) if in_policy else ConfigurationError(problems)
