"""The proof that a request may go to a backend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permit:
    """That this request may go to this backend, by this version of the policy.

    Made by ``policies/`` alone (a test holds that), and asked for wherever content is opened.
    """

    request_id: str
    backend: str
    policy_version: str
