"""What comes before the first attempt: from a call's arguments to a request with its plan and its record."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ...core.content import Content, CountTokensInput, GenerateInput, Sealed
from ...core.decision import Decision, PlannedStep
from ...core.request import Labels, Request, Residency, Task
from ...policies.facts import Facts, LinkFacts, TimeFacts
from ...policies.plan import Plan
from ..conversations import Conversation, Conversations
from ..execution.conduct import Conduct, Run
from ..options import GenerateOptions, Prompt, RequestOptions
from .ask import generate_input, identifier, labels_of, messages_of, prompt_tokens

if TYPE_CHECKING:
    from ...policies import Policy

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Decider:
    """Decides requests by the policy in force, which is replaced in one step between two of them.

    ``wall_clock`` gives local time. What conversations have been about is kept here.
    """

    def __init__(self, policy: Policy, random_source: random.Random, wall_clock: Callable[[], datetime]) -> None:
        self.policy = policy
        self._random = random_source
        self._wall_clock = wall_clock
        self._conversations = Conversations()

    def generation(self, prompt: Prompt, options: GenerateOptions, *, streaming: bool) -> tuple[GenerateInput, Labels]:
        """The content and the labels of a ``generate`` or ``stream``. Raises `InvalidRequest`."""
        messages = messages_of(prompt)
        tokens = prompt_tokens([message.text for message in messages], "a message")
        content = generate_input(messages, options)
        labels = labels_of(
            Task.GENERATE,
            options,
            self.policy,
            tokens=tokens,
            message_classes=[message.data_class for message in messages],
            content=content,
            streaming=streaming,
        )
        return content, labels

    def counting(self, prompt: Prompt, options: RequestOptions) -> tuple[CountTokensInput, Labels]:
        """The content and the labels of a ``count_tokens``. Raises `InvalidRequest`."""
        messages = messages_of(prompt)
        labels = labels_of(
            Task.COUNT_TOKENS,
            options,
            self.policy,
            tokens=prompt_tokens([message.text for message in messages], "a message"),
            message_classes=[message.data_class for message in messages],
        )
        return CountTokensInput(messages), labels

    def decide(
        self, conduct: Conduct, content: Content, labels: Labels, options: RequestOptions, started_at: float
    ) -> Run:
        """A request's facts, plan and record. Raises `InvalidRequest`."""
        key = identifier(options.get("idempotency_key"), "idempotency_key") or f"{self._random.getrandbits(128):032x}"
        conversation = self._conversation(options)
        labels = self._within(conversation, labels)
        request = Request(request_id := self._request_id(), labels, Sealed(content, request_id), started_at, key)
        deciding_at = asyncio.get_running_loop().time()
        facts = self._facts(conduct, conduct.connectivity.facts(), request_id, labels, conversation)
        plan = self.policy.plan(facts)
        self._remember(conversation, plan.data_classes, labels.residency)
        planning = asyncio.get_running_loop().time() - deciding_at
        return Run(conduct, request, plan, _record(request, plan, planning), facts, conversation)

    def announce(self, labels: Labels, options: RequestOptions) -> None:
        """Remember what a request is about that can be decided later only. Raises `InvalidRequest`."""
        conversation = self._conversation(options)
        labels = self._within(conversation, labels)
        self._remember(conversation, labels.data_classes, labels.residency)

    def plan(self, conduct: Conduct, labels: Labels, options: RequestOptions) -> Plan:
        """What would be decided now; nothing is remembered of it. Raises `InvalidRequest`."""
        conversation = self._conversation(options)
        labels = self._within(conversation, labels)
        link = conduct.connectivity.outlook()
        return self.policy.plan(self._facts(conduct, link, self._request_id(), labels, conversation))

    def _conversation(self, options: RequestOptions) -> Conversation | None:
        name = identifier(options.get("conversation"), "conversation")
        return None if name is None else self._conversations.look(name)

    def _remember(
        self, conversation: Conversation | None, classes: tuple[str, ...], residency: Residency | None
    ) -> None:
        if conversation is not None:
            conversation.tighten(classes, residency)
            self._conversations.remember(conversation)

    def _within(self, conversation: Conversation | None, labels: Labels) -> Labels:
        """The labels with the data classes and the narrowings that the conversation has had before."""
        if conversation is None:
            return labels
        classes = conversation.classes.union(self.policy.effective_classes(labels))
        residency = conversation.narrowed(labels.residency)
        return replace(labels, data_classes=tuple(sorted(classes)), unclassed=False, residency=residency)

    def _facts(
        self, conduct: Conduct, link: LinkFacts, request_id: str, labels: Labels, conversation: Conversation | None
    ) -> Facts:
        now = self._wall_clock()
        return Facts(
            request_id=request_id,
            labels=labels,
            link=link,
            device=conduct.device.facts(),
            time=TimeFacts(now.hour, now.minute, _WEEKDAYS[now.weekday()]),
            backends=tuple([member.facts(labels) for member in conduct.fleet]),
            spending=conduct.spending.facts(now.date()),
            conversation_backend=None if conversation is None else conversation.backend,
        )

    def _request_id(self) -> str:
        return f"{self._random.getrandbits(64):016x}"


def _record(request: Request, plan: Plan, planning: float) -> Decision:
    return Decision(
        request_id=request.id,
        task=request.labels.task,
        data_classes=plan.data_classes,
        policy_version=plan.policy_version,
        latency_budget=plan.latency_budget,
        first_token_budget=plan.first_token_budget,
        reason=plan.reason,
        steps=tuple([PlannedStep(step.backend, step.last_resort, step.starts_at, step.reason) for step in plan.steps]),
        refusals=plan.refusals,
        matched_rules=plan.matched_rules,
        notes=plan.notes,
        planning=planning,
    )
