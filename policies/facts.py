"""What a policy may look at, and nothing else: no content, no clock, no socket."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from math import erfc

from ..core.decision import RefusalCode
from ..core.place import Location
from ..core.price import Price
from ..core.request import Labels, Task

DEVIATIONS_TO_P95 = 1.6448536269514722
"""So many standard deviations above the mean 95 % of a normal distribution lie under."""

# Python 3.11 runs code to look an enum's member up, which is much beside what planning costs.
_COUNT_TOKENS = Task.COUNT_TOKENS
_ROOT_OF_2 = math.sqrt(2.0)


class LinkState(StrEnum):
    """How far the network reaches."""

    ONLINE = "online"
    LIMITED = "limited"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """The link as judged now. Unknown metering counts as metered.

    ``forced``: the application switched to this state itself, and means every remote backend, near or far.
    """

    state: LinkState = LinkState.ONLINE
    metered: bool = True
    confidence_percent: int = 0
    age: float = 0.0
    forced: bool = False


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device as last sampled. No battery counts as 100 % and charging."""

    battery_percent: int = 100
    has_battery: bool = False
    charging: bool = True
    load_percent: int = 0
    memory_free_mb: int = 0
    thermal: str = "nominal"


@dataclass(frozen=True, slots=True)
class TimeFacts:
    """Local time. ``weekday`` is ``monday`` to ``sunday``."""

    hour: int
    minute: int
    weekday: str


@dataclass(frozen=True, slots=True)
class SpendingFacts:
    """What requests have cost so far, in whole US cents: today and in this calendar month, local time."""

    today_cents: int = 0
    month_cents: int = 0


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A positive quantity's predicted distribution: mean and deviation of its natural logarithm, in log seconds."""

    mu: float
    sigma: float

    def quantile_95(self) -> float:
        """The value that 95 % lie under, in seconds."""
        return math.exp(self.mu + DEVIATIONS_TO_P95 * self.sigma)

    def median(self) -> float:
        """The middle value, in seconds."""
        return math.exp(self.mu)

    def probability_within(self, seconds: float) -> float:
        """The probability of at most so many seconds."""
        return 0.5 * erfc((self.mu - math.log(seconds)) / (self.sigma * _ROOT_OF_2)) if seconds > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What this request would take at one backend from its start, waiting there included.

    ``first`` is the time to the first token (for all but ``generate``: to the result), ``total`` to the last.
    ``known`` is false where this says little, because the backend has hardly been tried of late.
    """

    first: LogNormal
    total: LogNormal
    known: bool = True

    def p_done(self, log_total: float, log_first: float | None) -> float:
        """The smaller of the probabilities that ``total`` and ``first`` take at most so long.

        Times are natural logarithms of seconds, for who compares many predictions with one budget.
        """
        total = self.total
        deviations = (total.mu - log_total) / total.sigma
        if log_first is not None:
            first = self.first
            of_first = (first.mu - log_first) / first.sigma
            if of_first > deviations:
                deviations = of_first
        return 0.5 * erfc(deviations / _ROOT_OF_2)


@dataclass(frozen=True, slots=True)
class NotReady:
    """Why a backend cannot take work now."""

    code: RefusalCode
    sentence: str


@dataclass(frozen=True, slots=True)
class BackendTerms:
    """What a configuration says of a backend.

    ``price`` is ``None`` where none is configured. ``remote`` backends need the network unless ``works_offline`` (a
    gateway on the LAN, a loopback server).
    """

    name: str
    location: Location
    tasks: frozenset[Task]
    remote: bool
    quality: float = 0.5
    labels: frozenset[str] = frozenset()
    price: Price | None = None
    context_tokens: int | None = None
    continues: bool = False
    constrains: bool = False
    logprobs: bool = False
    works_offline: bool = False
    models: frozenset[str] | None = None

    def cost(self, labels: Labels) -> float:
        """What such a request would cost at most, in US dollars. Nobody is charged for counting."""
        if self.price is None or labels.task is _COUNT_TOKENS:
            return 0.0
        return self.price.of(labels.prompt_tokens, labels.max_output_tokens)


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What is known of a backend now. ``not_ready`` is ``None`` for one that can take work.

    ``judged_alone``: the way there is judged by itself, so that the link's state speaks neither for it nor against it.
    """

    name: str
    prediction: Prediction
    not_ready: NotReady | None = None
    judged_alone: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """One snapshot, from which one plan follows. ``backends`` stand in the order of the policy's terms.

    ``conversation_backend`` is who answered the conversation so far, and need not read it all again.
    """

    request_id: str
    labels: Labels
    link: LinkFacts
    device: DeviceFacts
    time: TimeFacts
    backends: tuple[BackendFacts, ...]
    spending: SpendingFacts = SpendingFacts()
    conversation_backend: str | None = None
