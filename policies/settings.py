"""The ``policy:`` section as written: values only, nothing judged yet.

The reader of the configuration is driven by these fields: the type says how a value is written, the sentence what it
means. A trailing underscore is not part of a key. Nothing here is text to expand or code, except ``when``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any

from ..core.place import Evidence
from ..core.settings import ByteSize, FilePath, Seconds
from .plan import StreamFailover

_HALF_A_MINUTE = Seconds(30.0)
_FIRST_WAIT = Seconds(0.05)
_LONGEST_WAIT = Seconds(2.0)
_A_DAY = Seconds(86400.0)
_A_WEEK = Seconds(604800.0)
_QUEUE_BYTES = ByteSize(64_000_000)


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


class Objective(StrEnum):
    """What backends that are otherwise equal are ordered by."""

    QUALITY = "quality"
    LATENCY = "latency"
    COST = "cost"


class WhenFull(StrEnum):
    """What happens to a new request where the outbox has no room."""

    REJECT = "reject"
    """It is refused, with `OutboxFull`."""
    DROP_OLDEST = "drop_oldest"
    """The oldest waiting requests become dead letters."""
    DROP_LOWEST = "drop_lowest"
    """Those of the lowest priority, oldest first, become dead letters; none whose priority is above the new one's."""


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A named place inside a country."""

    in_: Annotated[str, "the country that the site stands in, as its ISO 3166-1 alpha-2 code"]


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """A named set of countries, as it stood on a day."""

    members: Annotated[tuple[str, ...], "the countries, as ISO 3166-1 alpha-2 codes"]
    as_of: Annotated[str, "the day on which it was so, such as 2025-12-31"]
    source: Annotated[str, "where that can be read"]
    until: Annotated[str | None, "the last day on which it may be relied upon; later there is a warning"] = None


@dataclass(frozen=True, slots=True)
class DataClassSettings:
    """Where content of a class may be."""

    process_in: Annotated[
        tuple[str, ...] | None,
        "where it may be processed: countries, groups, `site:NAME`, or `[any]`; `[]` is this device",
    ] = None
    store_in: Annotated[tuple[str, ...] | None, "where it may be stored; like `process_in` when missing"] = None
    operators: Annotated[
        tuple[str, ...] | None, "whose operators may handle it, by country; like `process_in` when missing"
    ] = None
    evidence: Annotated[Evidence | None, "how strong a backend's claim must be; `declared` when missing"] = None
    narrows: Annotated[tuple[str, ...], "classes whose limits hold for this one too"] = ()
    queue: Annotated[bool, "it may be kept on disk while nothing can be reached"] = True
    hedge: Annotated[bool, "a second backend may be asked while the first is silent"] = True


@dataclass(frozen=True, slots=True)
class DefaultsSettings:
    """What holds where neither the caller nor a rule says otherwise."""

    latency_budget: Annotated[Seconds, "from the call to the last of the answer"] = _HALF_A_MINUTE
    first_token_budget: Annotated[Seconds | None, "from the call to the first text of a stream"] = None
    order: Annotated[tuple[Objective, ...], "what comes first among equals"] = (
        Objective.QUALITY,
        Objective.LATENCY,
        Objective.COST,
    )


@dataclass(frozen=True, slots=True)
class SetSettings:
    """What a rule sets for the requests that it matches."""

    latency_budget: Annotated[Seconds | None, "from the call to the last of the answer"] = None
    first_token_budget: Annotated[Seconds | None, "from the call to the first text of a stream"] = None
    order: Annotated[tuple[Objective, ...] | None, "what comes first among equals"] = None
    max_cost: Annotated[float | None, "US dollars that a request may cost at most, as estimated before it"] = None
    hedge: Annotated[bool | None, "whether a second backend may be asked while the first is silent"] = None
    stream_failover: Annotated[StreamFailover | None, "what happens when a stream breaks after its first text"] = None


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """One rule. Lists take names of backends, labels, `remote` and `device`."""

    name: Annotated[str, "what the rule is for, in words; decisions quote it"]
    when: Annotated[str | None, "a condition in CEL; without one the rule always applies"] = None
    prefer: Annotated[tuple[str, ...], "sort these first"] = ()
    avoid: Annotated[tuple[str, ...], "sort these last; they stay the last resort"] = ()
    deny: Annotated[tuple[str, ...], "never these"] = ()
    only: Annotated[tuple[str, ...] | None, "none but these"] = None
    set: Annotated[SetSettings | None, "budgets, order, the highest cost, hedging, how streams fail over"] = None


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How an attempt is repeated where nothing else is left."""

    max_attempts: Annotated[int, "attempts at one backend, the first included"] = 3
    initial_backoff: Annotated[Seconds, "the wait before the second attempt"] = _FIRST_WAIT
    max_backoff: Annotated[Seconds, "the longest wait between two attempts"] = _LONGEST_WAIT


@dataclass(frozen=True, slots=True)
class ResilienceSettings:
    """What happens when attempts fail."""

    retry: Annotated[RetrySettings, "how an attempt is repeated"] = RetrySettings()
    stream_failover: Annotated[
        StreamFailover, "what happens when a stream breaks after its first text; a call may ask for more"
    ] = StreamFailover.CONTINUE


@dataclass(frozen=True, slots=True)
class EncryptionSettings:
    """Where the key of the outbox is, in one of these places. A key is 64 hexadecimal digits.

    Older keys may follow the first one: they open what they sealed, and everything is sealed anew with the first.
    """

    key_file: Annotated[FilePath | None, "a file that holds it, for its owner alone"] = None
    key_env: Annotated[str | None, "the environment variable that holds it"] = None
    keyring: Annotated[
        str | None, "the user name under which the system keyring holds it, for the service `edgewise`"
    ] = None


@dataclass(frozen=True, slots=True)
class OfflineSettings:
    """What is kept for later while nothing can be reached."""

    queue_ttl: Annotated[Seconds, "how long a queued request lives"] = _A_DAY
    outbox: Annotated[FilePath | None, "the file that queued requests are kept in"] = None
    results_ttl: Annotated[Seconds, "how long an answer, or the reason why there is none, is kept"] = _A_WEEK
    max_entries: Annotated[int, "requests that may wait at once"] = 10_000
    max_bytes: Annotated[ByteSize, "what their content and the kept answers may take"] = _QUEUE_BYTES
    when_full: Annotated[WhenFull, "what happens to a new request where there is no room"] = WhenFull.REJECT
    max_sends: Annotated[int, "sends of one request after which something broke, before it is given up"] = 5
    encryption: Annotated[
        EncryptionSettings | None, "where the outbox's key is; without it, content is not encrypted"
    ] = None


@dataclass(frozen=True, slots=True)
class NeverSettings:
    """Where content of a class must never be, whatever else the policy says."""

    data_class: Annotated[str, "the class, alone or together with others"]
    reaches: Annotated[
        tuple[str, ...],
        "countries, groups, `site:NAME`; `any` is a backend that may be anywhere, `remote` one beyond this device",
    ]


@dataclass(frozen=True, slots=True)
class AssertionSettings:
    """A promise that the policy must keep. It changes nothing: a policy that breaks it does not load."""

    never: Annotated[NeverSettings, "what must not be possible"]


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The whole ``policy:`` section."""

    sites: Annotated[Mapping[str, SiteSettings], "named places inside countries"] = field(default_factory=_nothing)
    groups: Annotated[Mapping[str, GroupSettings], "named sets of countries, beside those that are known"] = field(
        default_factory=_nothing
    )
    data_classes: Annotated[Mapping[str, DataClassSettings], "where content of each class may be"] = field(
        default_factory=_nothing
    )
    default_data_class: Annotated[
        str | None, "the class of content that has none; when missing, all classes at once"
    ] = None
    tags: Annotated[Mapping[str, tuple[str, ...]], "the tags that requests may carry, each with its values"] = field(
        default_factory=_nothing
    )
    defaults: Annotated[DefaultsSettings, "what holds where nobody says otherwise"] = DefaultsSettings()
    rules: Annotated[tuple[RuleSettings, ...], "all that match apply"] = ()
    resilience: Annotated[ResilienceSettings, "what happens when attempts fail"] = ResilienceSettings()
    offline: Annotated[OfflineSettings, "what is kept for later"] = OfflineSettings()
    assert_: Annotated[tuple[AssertionSettings, ...], "promises that the policy must keep, or it does not load"] = ()
