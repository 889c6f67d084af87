"""The link, for blocking code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from ...core.errors import RouterClosed
from ...policies.facts import LinkState
from ..link import Connectivity, LinkStatus
from .background import Background

T = TypeVar("T")


class BlockingConnectivity:
    """`Connectivity`'s methods, run where the router's state lives. Any thread may call them."""

    def __init__(self, background: Background, link: Callable[[], Connectivity]) -> None:
        self._background = background
        self._link = link

    @property
    def state(self) -> LinkState:
        """The link's state now."""
        return self._with(lambda link: link.state)

    @property
    def status(self) -> LinkStatus:
        """The state and every endpoint's, each with its age, how sure it is, and why."""
        return self._with(lambda link: link.status)

    def force(self, state: LinkState | str | None) -> None:
        """Say what the link is: ``online``, ``limited`` or ``offline``; ``None`` lets it be judged."""
        self._with(lambda link: link.force(state))

    def set_metered(self, metered: bool | None) -> None:
        """Say whether the link costs by volume. Unknown counts as metered."""
        self._with(lambda link: link.set_metered(metered))

    def report(self, state: LinkState | str | None = None, *, changed: bool = False) -> None:
        """Feed what the application knows. See `Connectivity.report`."""
        self._with(lambda link: link.report(state, changed=changed))

    def check(self) -> LinkStatus:
        """Ask every remote endpoint now; the status when each has answered, or has not."""

        async def check() -> LinkStatus:
            return await self._link().check()

        return self._background.run(check())

    def subscribe(self, listener: Callable[[LinkStatus], None]) -> Callable[[], None]:
        """Have ``listener`` called at each change, on the router's own thread; returns what ends that.

        It must neither block nor call this router: let it hand the status over to a thread of your own.
        """
        end = self._with(lambda link: link.subscribe(listener))

        def unsubscribe() -> None:
            if self._background.alive:
                self._with(lambda link: end())

        return unsubscribe

    def changes(self) -> Iterator[LinkStatus]:
        """The status now, and anew at each change: blocks until there is one. Ends with the router."""

        async def next_status() -> LinkStatus:
            return await anext(changes)

        changes = self._with(lambda link: link.changes())
        try:
            while True:
                yield self._background.run(next_status())
        except RouterClosed:
            return
        finally:
            if self._background.alive:
                self._background.run(changes.aclose())

    def _with(self, work: Callable[[Connectivity], T]) -> T:
        return self._background.call(lambda: work(self._link()))
