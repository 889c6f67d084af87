"""Whether a queued request that is sent again could run twice: judged from how long its server remembers keys."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.duration import format_duration
from ...core.problem import Path, Problem, Severity
from ...core.request import Task
from ...policies.settings import OfflineSettings
from .backends import BackendEntry

_TTL: Path = ("policy", "offline", "queue_ttl")


def check_repetition(offline: OfflineSettings, backends: Iterable[BackendEntry]) -> list[Problem]:
    """A warning for every remote backend whose server forgets a key while the queue may still send it again."""
    if offline.outbox is None:
        return []
    lives = format_duration(offline.queue_ttl)
    found = []
    for each in backends:
        if not each.terms.remote or Task.GENERATE not in each.terms.tasks:
            continue
        remembers = each.common.remembers_keys
        if remembers is not None and (remembers == 0.0 or remembers >= offline.queue_ttl):
            continue  # whoever writes 0 has said that it may run twice
        path: Path = ("backends", each.name, "remembers_keys")
        what = "nothing says that its server remembers idempotency keys"
        mend = "write `remembers_keys: …`, as long as the server does; `0s` where requests may run twice there"
        if remembers is not None:
            what = f"its server remembers idempotency keys for {format_duration(remembers)}"
            mend = "let the server remember them for as long as the queue lives, or shorten `policy.offline.queue_ttl`"
        sentence = f"a queued request may be sent again for {lives}, and run twice there: {what}"
        found.append(Problem(sentence, mend, path, Severity.WARNING, rests_on=(_TTL,)))
    return found
