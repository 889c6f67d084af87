"""One file configures an application: read with positions, judged as a whole, all mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path as FileSystemPath
from typing import Any

from ...backends.models import ModelFile, ModelSettings
from ...backends.registry import BackendKind
from ...core.errors import ConfigurationError, PolicyError
from ...core.place import Location
from ...core.problem import Path, Position, Problem, Severity
from ...core.settings import FilePath
from ...core.suggestion import closest, one_of
from ...policies import Policy, compile_policy
from ...policies.gaps import Gaps
from ...policies.own_places import read_places
from ...policies.settings import PolicySettings
from ..decision_log import DecisionLogSettings
from ..decision_log import check as check_decision_log
from ..serving.settings import ServeSettings
from ..serving.settings import check as check_serve
from .backends import BackendEntry, BackendReader, WrittenBackend, finish, judge
from .excerpt import Excerpts
from .locations import known_places
from .lookalikes import check_names
from .mistakes import independent
from .reader import Reader
from .repetition import check_repetition
from .text import LARGEST, decode, read_bytes, unreadable
from .tree import Complaint, Mark, Node, Table, mark_of, parse, show_all

_MOST_TOLD = 200
_LONGEST_SENTENCE = 1000
_SECTIONS = ("version", "models", "backends", "policy", "serve", "decision_log", "state_file")
_TOP = Mark(1, 1)
_APART: Sequence[Path] = (("defaults",), ("resilience",), ("offline",))
"""Parts of the policy that do not say what may go where."""


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
    decision_log: DecisionLogSettings | None = None
    state_file: FilePath | None = None


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
    reader = Reader(base, os.environ if environment is None else environment)
    reading = _Reading(reader, [each.path for each in complaints], base, kinds or {})
    configuration, problems = reading.configuration(file, tree)
    placed = [_problem(each, excerpts.position(each.mark)) for each in (*complaints, *reader.complaints)]
    placed += [replace(each, position=excerpts.position(mark_of(tree, each.path, each.offset))) for each in problems]
    placed = [_bounded(each) for each in placed]
    placed.sort(key=lambda each: (each.position.line, each.position.column) if each.position else (0, 0))
    if configuration is None or any(each.severity is Severity.ERROR for each in placed):
        raise _error(placed)
    return replace(configuration, warnings=tuple(placed))


class _Reading:
    """Reads the sections of one tree, each as far as it can be read. ``unread`` are places that are no good YAML."""

    def __init__(
        self, reader: Reader, unread: Iterable[Path], base: FileSystemPath, kinds: Mapping[str, BackendKind]
    ) -> None:
        self.reader = reader
        self._unread_before = frozenset(unread)
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
                at = closest(name, _SECTIONS) or name
                self.reader.complain(f"there is no section {name!r}", one_of(name, _SECTIONS), mark, (at,))
        self._version(tree)
        models = self._section(tree, "models", Mapping[str, ModelSettings], {})
        serve = self._section(tree, "serve", ServeSettings, ServeSettings())
        decisions = self._section(tree, "decision_log", DecisionLogSettings, None)
        state_file = self._section(tree, "state_file", FilePath, None)
        settings = self._section(tree, "policy", PolicySettings, PolicySettings())
        model_files = {name: ModelFile(name, each, self._base) for name, each in models.items()}
        self.reader.models = None if ("models",) in self._unread() else list(models)
        mark, section = tree.entries.get("backends", (_TOP, Table({}, _TOP)))
        written = BackendReader(self.reader, self._kinds).entries(section, mark)
        problems = _below("serve", check_serve(serve))
        problems += [] if decisions is None else _below("decision_log", check_decision_log(decisions))
        problems += _check_state_file(state_file, file, settings, decisions)
        unread = self._unread()
        places, _ = read_places(settings, known_places())
        locations: dict[str, Location] = {}
        for each in written:
            locations[each.name], found = judge(each, places, unread)
            problems += found
        mistaken = {*unread, *(each.path for each in problems if each.severity is Severity.ERROR)}
        names = {path[1] for path in mistaken if path[:1] == ("backends",) and len(path) > 1}
        backends = {
            each.name: finish(each, each.kind, locations[each.name], model_files)
            for each in written
            if each.kind is not None and each.name not in names and self.reader.models is not None
        }
        problems += check_repetition(settings.offline, backends.values())
        problems += check_names(settings, written)
        left_out = [each for each in written if each.name not in backends]
        terms = [entry.terms for entry in backends.values()]
        gaps = _gaps(left_out, unread) if mistaken else None
        policy, of_policy = compile_policy(settings, terms, known_places(), date.today(), gaps)
        problems = independent([*problems, *_below("policy", of_policy)], unread)
        if policy is None:
            return None, problems
        problems += [] if state_file is not None else _forgotten_spending(policy)
        made = Configuration(
            file,
            self._base,
            model_files,
            backends,
            serve,
            settings,
            policy,
            decision_log=decisions,
            state_file=state_file,
        )
        return made, problems

    def _unread(self) -> set[Path]:
        """Where something could not be read so far."""
        return {*self._unread_before, *(each.path for each in self.reader.complaints)} - {()}

    def _version(self, tree: Table) -> None:
        if "version" not in tree.entries:
            self.reader.complain("'version' is missing", "begin with `version: 1`", _TOP, ("version",))
            return
        mark, node = tree.entries["version"]
        version = self.reader.value(int, node, ("version",), mark)
        if version != 1 and ("version",) not in self._unread():
            self.reader.complain("this version is not known", "write `version: 1`", node.mark, ("version",))

    def _section(self, tree: Table, name: str, kind: Any, missing: Any) -> Any:
        if name not in tree.entries:
            return missing
        mark, node = tree.entries[name]
        if name in ("policy", "models"):
            show_all(node)
        return self.reader.value(kind, node, (name,), mark)


def _gaps(left_out: Sequence[WrittenBackend], unread: Collection[Path]) -> Gaps:
    """What the policy is judged without, where ``left_out`` are the backends with mistakes."""
    named = {label for each in left_out for label in (each.name, *each.common.labels)}
    nameless = any(path[0] == "backends" and (len(path) < 3 or path[2] == "labels") for path in unread)
    apart = all(path[0] != "policy" or path[1:2] in _APART for path in unread)
    return Gaps(None if nameless else frozenset(named), elsewhere=apart and not left_out)


def _check_state_file(
    state_file: str | None, file: str, settings: PolicySettings, decisions: DecisionLogSettings | None
) -> list[Problem]:
    """It is replaced as a whole, again and again: no other file may be there."""
    if state_file is None:
        return []
    problem = partial(Problem, mend="name a file of its own, such as `state.json`", path=("state_file",))
    if FileSystemPath(state_file).is_dir():
        return [problem("this is a folder")]
    others = {
        "the configuration": file,
        "the outbox": settings.offline.outbox,
        "the decision log": None if decisions is None else decisions.path,
    }
    return [
        problem(f"{what} is kept in this file")
        for what, path in others.items()
        if path is not None and os.path.abspath(path) == os.path.abspath(state_file)
    ]


def _forgotten_spending(policy: Policy) -> list[Problem]:
    """A warning of a month's spending that ends with the process."""
    if not any(name.startswith("spending.") for name in policy.reads):
        return []
    at = next(at for at, rule in enumerate(policy.rules) if "spending" in (rule.settings.when or ""))
    mend = "add `state_file: state.json` at the top level"
    path: Path = ("policy", "rules", at, "when")
    return [Problem("what was spent is forgotten with every restart", mend, path, Severity.WARNING)]


def _below(section: str, problems: Sequence[Problem]) -> list[Problem]:
    return [
        replace(each, path=(section, *each.path), rests_on=tuple((section, *place) for place in each.rests_on))
        for each in problems
    ]


def _problem(complaint: Complaint, position: Position) -> Problem:
    return Problem(complaint.sentence, complaint.mend, complaint.path, position=position)


def _bounded(problem: Problem) -> Problem:
    """The problem in few words, whatever it quotes."""
    if len(problem.sentence) <= _LONGEST_SENTENCE and len(problem.mend) <= _LONGEST_SENTENCE:
        return problem
    return replace(problem, sentence=_cut(problem.sentence), mend=_cut(problem.mend))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SENTENCE else text[: _LONGEST_SENTENCE // 2] + " … " + text[-100:]


def _error(problems: Sequence[Problem]) -> ConfigurationError:
    errors: list[Path] = [each.path for each in problems if each.severity is Severity.ERROR]
    in_policy = bool(errors) and all(path[:1] == ("policy",) for path in errors)
    if len(problems) > _MOST_TOLD:
        rest = Problem(f"and {len(problems) - _MOST_TOLD} more", "mend these first", position=problems[-1].position)
        problems = [*problems[:_MOST_TOLD], rest]
    return PolicyError(problems) if in_policy else ConfigurationError(problems)
