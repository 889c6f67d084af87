"""What a backend is told of where content may go: the meet of all walls, in names that a server knows itself by."""

from __future__ import annotations

import pytest

from edgewise.core.permit import Bounds
from edgewise.core.place import Evidence
from edgewise.core.request import Labels, Task
from edgewise.policies import Policy, compile_policy
from edgewise.policies.places import Places
from edgewise.policies.settings import DataClassSettings, PolicySettings, SiteSettings


@pytest.fixture
def policy(places: Places) -> Policy:
    settings = PolicySettings(
        sites={"praxis": SiteSettings("DE"), "lab": SiteSettings("FR")},
        data_classes={
            "public": DataClassSettings(("any",)),
            "german": DataClassSettings(("DE", "CH")),
            "clinical": DataClassSettings(("site:praxis",), evidence=Evidence.ATTESTED),
            "nowhere": DataClassSettings(()),
        },
        default_data_class="public",
    )
    policy, _ = compile_policy(settings, (), places)
    assert policy is not None
    return policy


@pytest.mark.parametrize(
    ("classes", "residency", "bounds"),
    [
        (("public",), None, Bounds(None)),
        (("german",), None, Bounds(frozenset({"DE", "CH", "site:praxis"}))),
        (("german", "clinical"), None, Bounds(frozenset({"site:praxis"}), attested=True)),
        (("public",), ["FR"], Bounds(frozenset({"FR", "site:lab"}))),
        (("german",), ["FR"], Bounds(frozenset())),
        (("nowhere",), None, Bounds(frozenset())),
    ],
)
def test_bounds_are_the_meet_of_all_walls(
    classes: tuple[str, ...], residency: list[str] | None, bounds: Bounds, policy: Policy
) -> None:
    narrowed = None if residency is None else policy.residency(residency)
    assert policy.bounds(Labels(Task.GENERATE, data_classes=classes, residency=narrowed)) == bounds
