"""A new version of a configuration for a router that runs: judged as a whole, or nothing changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from os import PathLike

from ...core.errors import ConfigurationError
from ...core.failure import AttemptError, FailureKind
from ...core.problem import Problem
from ...policies import Policy
from ..config import Configuration, load
from ..execution.attempt import Attempt

log = logging.getLogger("edgewise")

_MEND = "keep `backends:` and `models:` as they are but for location, quality, price and labels; or make a new router"


def first_version(path: str | PathLike[str]) -> Configuration:
    """The configuration of a file, whose warnings go to the log. Blocks. Raises `ConfigurationError`."""
    configuration = load(path)
    for warning in configuration.warnings:
        log.warning("%s", warning.render())
    return configuration


def new_version(running: Configuration, path: str | PathLike[str] | None) -> Configuration:
    """The configuration of a file (the running one's own, where absent). Blocks.

    Raises `ConfigurationError` for a file that does not load, or wants other backends than those that run.
    """
    new = first_version(running.file if path is None else path)
    problems: list[Problem] = []
    if list(new.backends) != list(running.backends):
        names = ", ".join(running.backends)
        problems.append(Problem(f"a running router keeps its backends: {names}, in this order", _MEND, ("backends",)))
    for name in new.backends.keys() & running.backends.keys():
        one, other = running.backends[name], new.backends[name]
        if one.kind.name != other.kind.name or one.settings != other.settings:
            sentence = f"the settings of the backend {name!r} are others than those that it runs by"
            problems.append(Problem(sentence, _MEND, ("backends", name)))
    if new.models != running.models:
        problems.append(Problem("the models are others than those that run", _MEND, ("models",)))
    if problems:
        raise ConfigurationError(sorted(problems, key=lambda each: each.path))
    return new


def withdraw_forbidden(attempts: Iterable[Attempt], policy: Policy) -> None:
    """Stop every attempt that runs, or waits for its turn, where these walls no longer permit it."""
    for attempt in list(attempts):
        refusal = policy.permits(attempt.step.permit, attempt.run.request.labels)
        if refusal is not None:
            sentence = f"stopped, no longer permitted: {refusal.sentence}"
            attempt.withdrawn(AttemptError(FailureKind.NOT_PERMITTED, sentence))
