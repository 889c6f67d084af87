"""What `router.connectivity` shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ...core.duration import format_duration
from ...policies.facts import LinkState


class Reachability(StrEnum):
    """Whether a remote endpoint can be reached, as far as is known."""

    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One remote endpoint. ``age`` is the seconds since the last evidence; ``None`` where there is none."""

    endpoint: str
    backends: tuple[str, ...]
    reachability: Reachability
    confidence_percent: int
    age: float | None
    why: str


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The link, and what it was judged from.

    ``metered`` is ``None`` where nobody knows; policies then see it as metered. ``age`` is the seconds since the last
    evidence for this state. ``watch`` says how changes of the operating system's network are noticed.
    """

    state: LinkState
    forced: bool
    metered: bool | None
    confidence_percent: int
    age: float
    why: str
    endpoints: tuple[EndpointStatus, ...]
    watch: str

    def explain(self) -> str:
        """The status as people read it, several lines."""
        metered = {True: "metered", False: "not metered", None: "metered as far as is known"}[self.metered]
        sure = f"{self.confidence_percent} % sure, by evidence {format_duration(self.age)} old"
        lines = [f"{self.state}, {metered}: {self.why} ({sure})"]
        for each in self.endpoints:
            age = "" if each.age is None else f", {format_duration(each.age)} ago"
            names = ", ".join(each.backends)
            sure = f"{each.confidence_percent} %{age}"
            lines.append(f"  {each.endpoint} ({names}): {each.reachability}, {each.why} ({sure})")
        return "\n".join(lines)
