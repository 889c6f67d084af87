"""The proof that a request may go to a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Permit(NamedTuple):
    """That this request may go to this backend, by this version of the policy.

    Made by ``policies/`` alone (a test holds that), and asked for wherever content is opened.
    """

    request_id: str
    backend: str
    policy_version: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the walls leave of the world for one request, told to whoever carries its content.

    ``places`` are the countries and sites (``site:NAME``) where it may be processed, a permitted country's sites among
    them; ``None`` is anywhere. ``attested``: a place is to be proven before any content is sent there.
    """

    places: frozenset[str] | None = None
    attested: bool = False


UNBOUNDED = Bounds()
