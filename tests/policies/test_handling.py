"""How classes may be handled: whether a second backend may be asked, and whether a request may wait on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from edgewise.core.request import Labels, Task
from edgewise.policies import Policy
from edgewise.policies.facts import Facts
from edgewise.policies.settings import DataClassSettings, RuleSettings, SetSettings

MakePolicy = Callable[..., Policy]
MakeFacts = Callable[..., Facts]

CLASSES = {
    "public": DataClassSettings(process_in=("any",)),
    "personal": DataClassSettings(process_in=("EU",), hedge=False),
    "health": DataClassSettings(narrows=("personal",), queue=False),
    "note": DataClassSettings(process_in=("any",), queue=False),
}


@pytest.mark.parametrize(
    ("data_classes", "hedge", "queue"),
    [
        (("public",), True, True),
        (("personal",), False, True),
        (("health",), False, False),
        (("note",), True, False),
        (("public", "personal"), False, True),
        (("note", "public"), True, False),
    ],
)
def test_a_request_is_handled_as_all_its_classes_permit(
    make_policy: MakePolicy, make_facts: MakeFacts, data_classes: tuple[str, ...], hedge: bool, queue: bool
) -> None:
    policy = make_policy(data_classes=CLASSES)
    assert policy.plan(make_facts(data_classes=data_classes)).hedge is hedge
    assert policy.may_queue(Labels(Task.GENERATE, data_classes)) is queue


def test_content_without_a_class_is_handled_as_the_default(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    assert make_policy(data_classes=CLASSES, default_data_class="personal").plan(make_facts()).hedge is False
    assert make_policy(data_classes=CLASSES, default_data_class=None).plan(make_facts()).hedge is False


@pytest.mark.parametrize(
    ("tokens", "hedge"),
    [(10, {"public": True, "personal": False}), (200, {"public": False, "personal": False})],
)
def test_the_last_rule_that_matches_says_whether_to_hedge_and_no_rule_overrules_a_class(
    make_policy: MakePolicy, make_facts: MakeFacts, tokens: int, hedge: Mapping[str, bool]
) -> None:
    policy = make_policy(
        RuleSettings("never twice", set=SetSettings(hedge=False)),
        RuleSettings("but short ones", when="request.prompt_tokens < 100", set=SetSettings(hedge=True)),
        data_classes=CLASSES,
    )
    for name, expected in hedge.items():
        assert policy.plan(make_facts(data_classes=(name,), prompt_tokens=tokens)).hedge is expected
