"""Whether the network came back while something waited for it."""

from __future__ import annotations

from collections.abc import Callable

from ...policies.facts import LinkState
from ..link import Connectivity, LinkStatus, Reachability


class ReturnOfLink:
    """Follows the link while something waits, and not otherwise: whoever follows it has it asked for what is lost.

    ``stirred`` is called at each change.
    """

    def __init__(self, stirred: Callable[[], None]) -> None:
        self._stirred = stirred
        self._end: Callable[[], None] | None = None
        self._last: LinkStatus | None = None
        self._link_back = self._endpoint_back = False

    def wait(self, connectivity: Connectivity) -> None:
        """Follow it from here on; to be called now and then while something waits."""
        if self._end is None:
            self._last = connectivity.status
            self._end = connectivity.subscribe(self._heard)
        else:
            connectivity.keep_watching()

    def stop_waiting(self) -> None:
        """Follow it no more. Idempotent."""
        if self._end is not None:
            self._end()
            self._end = None

    def is_back(self) -> bool:
        """Whether the link was lost and is there again; true once for each return."""
        was, self._link_back = self._link_back, False
        return was

    def endpoint_is_back(self) -> bool:
        """Whether one endpoint, or the link, was lost and is there again; true once for each return."""
        was, self._endpoint_back = self._endpoint_back, False
        return was

    def _heard(self, status: LinkStatus) -> None:
        before, self._last = self._last, status
        assert before is not None
        if before.state is LinkState.OFFLINE and status.state is not LinkState.OFFLINE:
            self._link_back = self._endpoint_back = True
        lost = {each.endpoint for each in before.endpoints if each.reachability is Reachability.UNREACHABLE}
        if any(
            each.endpoint in lost and each.reachability is not Reachability.UNREACHABLE for each in status.endpoints
        ):
            self._endpoint_back = True
        self._stirred()
