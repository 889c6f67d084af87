"""The link as judged from what calls really did, or as an application says it is."""

from __future__ import annotations

from collections.abc import Callable

from ...policies.facts import LinkFacts, LinkState

_ASSUMED_CONFIDENCE = 50
_SEEN_CONFIDENCE = 95
# An observation loses its weight with age: after a minute it is worth no more than the assumption.
_FULL_TRUST_SECONDS = 60.0


class Connectivity:
    """How far the network reaches.

    Without other knowledge it is taken to be online, with low confidence: a call then shows whether it is so. An
    endpoint that fails says nothing about the link; that is kept per backend. ``clock`` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._forced: LinkState | None = None
        self._metered: bool | None = None
        self._since = clock()
        self._last_answer: float | None = None

    def force(self, state: LinkState | str | None) -> None:
        """Say what the link is: ``online``, ``limited``, ``offline`` (the airplane switch); ``None`` lets it be judged.

        Raises ``ValueError`` for another word. Attempts that already run are not stopped.
        """
        self._forced = None if state is None else LinkState(state)
        self._since = self._clock()

    def set_metered(self, metered: bool | None) -> None:
        """Say whether the link costs by volume. ``None``, unknown, counts as metered."""
        self._metered = metered

    def remote_answered(self) -> None:
        """A remote backend answered: the network reaches at least there."""
        self._last_answer = self._clock()

    @property
    def state(self) -> LinkState:
        """The link's state now."""
        return self._forced or LinkState.ONLINE

    def facts(self) -> LinkFacts:
        """The link as policies see it."""
        now = self._clock()
        metered = self._metered is not False
        if self._forced is not None:
            return LinkFacts(self._forced, metered, 100, now - self._since, forced=True)
        if self._last_answer is None:
            return LinkFacts(LinkState.ONLINE, metered, _ASSUMED_CONFIDENCE, now - self._since)
        age = now - self._last_answer
        trust = max(0.0, 1.0 - age / _FULL_TRUST_SECONDS)
        confidence = _ASSUMED_CONFIDENCE + round((_SEEN_CONFIDENCE - _ASSUMED_CONFIDENCE) * trust)
        return LinkFacts(LinkState.ONLINE, metered, confidence, age)
