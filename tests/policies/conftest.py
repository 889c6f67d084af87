"""Policies and facts in few words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from edgewise.core.place import DEVICE, Location, Place, PlaceSet
from edgewise.core.price import Price
from edgewise.core.problem import render_problems
from edgewise.core.request import Labels, Task
from edgewise.policies import Policy, compile_policy
from edgewise.policies.facts import (
    BackendFacts,
    BackendTerms,
    DeviceFacts,
    Facts,
    LinkFacts,
    LogNormal,
    NotReady,
    Prediction,
    TimeFacts,
)
from edgewise.policies.places import Places
from edgewise.policies.settings import DataClassSettings, PolicySettings

QUICK = Prediction(LogNormal(-2.0, 0.1), LogNormal(-1.0, 0.1))


@pytest.fixture(scope="session")
def places() -> Places:
    """The countries and groups that come with edgewise."""
    return Places.from_data(json.loads((files("edgewise.policies") / "data/places.json").read_text("utf-8")))


def in_country(country: str, operator: str | None = None, **more: Any) -> Location:
    """A location that processes and stores in one country."""
    there = PlaceSet.of([Place(country)])
    return Location(there, there, PlaceSet.of([Place(operator or country)]), **more)


@pytest.fixture
def terms() -> tuple[BackendTerms, ...]:
    """A phone, a gateway in Germany and a costly cloud in the Netherlands run by Americans."""
    phone = BackendTerms("phone", DEVICE, frozenset(Task), remote=False, quality=0.35, context_tokens=2048)
    gateway = BackendTerms("gateway", in_country("DE"), frozenset(Task), remote=True, quality=0.6, continues=True)
    cloud = BackendTerms(
        "cloud",
        in_country("NL", "US"),
        frozenset({Task.GENERATE}),
        remote=True,
        quality=0.88,
        labels=frozenset({"metered"}),
        price=Price(1.0, 10.0),
        constrains=True,
    )
    return phone, gateway, cloud


CLASSES = {
    "public": DataClassSettings(process_in=("any",)),
    "personal": DataClassSettings(process_in=("EU",), operators=("EU", "US")),
    "health": DataClassSettings(process_in=("DE",)),
}


@pytest.fixture
def make_policy(places: Places, terms: tuple[BackendTerms, ...]) -> Callable[..., Policy]:
    """A policy with the classes public, personal and health and these further settings."""

    def make(*rules: Any, backends: tuple[BackendTerms, ...] = terms, **settings: Any) -> Policy:
        settings = {"data_classes": CLASSES, "default_data_class": "public", **settings}
        policy, problems = compile_policy(PolicySettings(rules=rules, **settings), backends, places)
        assert policy is not None, render_problems(problems)
        return policy

    return make


@pytest.fixture
def make_facts(terms: tuple[BackendTerms, ...]) -> Callable[..., Facts]:
    """Facts of a request, by its labels' names; all backends are quick and ready unless said otherwise."""

    def make(
        *,
        link: LinkFacts | None = None,
        device: DeviceFacts | None = None,
        predictions: Mapping[str, Prediction] | None = None,
        not_ready: Mapping[str, NotReady] | None = None,
        **labels: Any,
    ) -> Facts:
        return Facts(
            "request-1",
            replace(Labels(Task.GENERATE), **labels),
            link or LinkFacts(metered=False),
            device or DeviceFacts(),
            TimeFacts(12, 0, "monday"),
            tuple(
                BackendFacts(each.name, (predictions or {}).get(each.name, QUICK), (not_ready or {}).get(each.name))
                for each in terms
            ),
        )

    return make
