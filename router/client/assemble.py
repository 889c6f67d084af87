"""Makes the backends that a configuration names."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...backends import Backend
from ...core.errors import EdgewiseError
from ...core.request import Task
from ..estimates.prior import ON_DEVICE, ON_DEVICE_ARRAYS, REMOTE, REMOTE_ARRAYS
from ..fleet import Fleet, Member
from ..link import Connectivity, Network

if TYPE_CHECKING:
    from ..config import Configuration


def build_fleet(
    configuration: Configuration,
    replacements: Mapping[str, Backend],
    clock: Callable[[], float],
    random_source: random.Random,
    network: Network,
) -> tuple[Fleet, Connectivity]:
    """The configured backends, with ``replacements`` in place of those of the same name, and the link.

    No backend is opened yet.
    """
    unknown = sorted(set(replacements) - set(configuration.backends))
    if unknown:
        known = ", ".join(configuration.backends)
        raise EdgewiseError(f"the configuration has no backend {unknown[0]!r} to replace; it has: {known}")
    backends = {
        name: replacements.get(name) or entry.build(configuration.models)
        for name, entry in configuration.backends.items()
    }
    remote = [backends[name] for name, entry in configuration.backends.items() if entry.terms.remote]
    connectivity = Connectivity(remote, network, random_source)
    members = []
    for name, entry in configuration.backends.items():
        whole, arrays = (REMOTE, REMOTE_ARRAYS) if entry.terms.remote else (ON_DEVICE, ON_DEVICE_ARRAYS)
        priors = dict.fromkeys(Task, arrays) | {Task.GENERATE: whole}
        # By what they are made of; a secret's repr holds none of it.
        described = repr((entry.kind.name, entry.settings, configuration.models, priors))
        identity = hashlib.sha256(described.encode()).hexdigest()[:16]
        reach = connectivity.reach(name)
        members.append(Member(backends[name], entry.terms, priors, clock, random_source, identity, reach))
    return Fleet(members), connectivity
