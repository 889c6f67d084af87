"""The policy at work: facts in, plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log
from operator import attrgetter

from ..core.decision import Refusal, RefusalCode
from ..core.errors import InvalidRequest
from ..core.permit import Bounds, Permit
from ..core.place import Evidence
from ..core.request import Labels, Residency, Task
from ..core.suggestion import one_of
from .conditions import Situation
from .evaluation import ConditionSet, Outcomes
from .facts import BackendTerms, Facts, Prediction
from .memory import Memory
from .order import ENOUGH, ENOUGH_UNTRIED
from .places import Places
from .plan import Plan, Retry, Step, StreamFailover
from .ranking import ABLE, KEPT, LIKELY, UNABLE, Settled, settle
from .reach import Reach
from .refusals import as_if_online, limited_by_the_link, narrowed, nobody, refused_always, refused_now
from .rules import Effects, Rule, RuleSet
from .schedule import starts_at
from .settings import Objective
from .walls import Walls

_REMEMBERED = 512

# Python 3.11 runs code to look an enum's member up, which is much beside what planning costs.
_GENERATE = Task.GENERATE


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where neither the caller nor a rule says otherwise. Budgets are seconds."""

    latency_budget: float
    first_token_budget: float | None
    order: tuple[Objective, ...]
    retry: Retry
    stream_failover: StreamFailover


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """What labels alone decide: the effective classes, whether they may be hedged, and why which backend cannot be.

    Each is its own key: labels that are alike have the same one.
    """

    data_classes: tuple[str, ...]
    refusals: tuple[Refusal | None, ...]
    hedge: bool


class Policy:
    """A policy that was judged and may be used. It never changes; a new version is a new object.

    ``version`` is a short hash of all that decides: two policies of one version decide alike.
    """

    def __init__(
        self,
        version: str,
        terms: Sequence[BackendTerms],
        places: Places,
        walls: Walls,
        conditions: ConditionSet,
        rules: RuleSet,
        defaults: Defaults,
        tags: Mapping[str, tuple[str, ...]],
        unhedged: frozenset[str],
        unqueued: frozenset[str],
        reach: Reach,
    ) -> None:
        self.version = version
        self.terms = tuple(terms)
        self.places = places
        self.walls = walls
        self.reach = reach
        self._index = {each.name: at for at, each in enumerate(self.terms)}
        self._conditions = conditions
        self._rules = rules
        self._defaults = defaults
        self._tags = {name: frozenset(values) for name, values in tags.items()}
        self._unhedged = unhedged
        self._unqueued = unqueued
        self._settled = Memory[tuple[_Judged, Outcomes], Settled](_REMEMBERED)
        self._judgements = Memory[tuple[object, ...], _Judged](_REMEMBERED)
        self._bounds = Memory[tuple[object, ...], Bounds](_REMEMBERED)
        self._walled = Memory[tuple[object, ...], tuple[str | None, ...]](_REMEMBERED)

    @property
    def default_latency_budget(self) -> float:
        """Seconds for a request, where neither the caller nor a rule gives a budget."""
        return self._defaults.latency_budget

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, in their order."""
        return self._rules.rules

    @property
    def reads(self) -> tuple[str, ...]:
        """The facts that some condition looks at, such as ``device.charging``."""
        return self._conditions.reads

    def rule_outcomes(self, facts: Facts) -> tuple[bool | None, ...]:
        """Whether each rule matches, in their order; ``None`` where its condition failed. Raises as `plan` does."""
        classes = self._judge(facts.labels).data_classes
        return self._rules.outcomes(self._outcomes(facts, classes, self.declared_tags(facts.labels)))

    def plan(self, facts: Facts) -> Plan:
        """What this policy grants for these facts. Raises `InvalidRequest` for labels that name what is not there."""
        plan = self._plan(facts)
        if plan.steps or not limited_by_the_link(facts):
            return plan
        online = as_if_online(facts)
        return plan._replace(online_would_help=bool(self._plan(online).steps))

    def permits(self, permit: Permit, labels: Labels) -> Refusal | None:
        """Why these walls forbid what a permit, perhaps of an older policy, allows; ``None`` if they do not."""
        at = self._index.get(permit.backend)
        if at is None:
            return Refusal(permit.backend, RefusalCode.RESIDENCY, "the policy in force does not know this backend")
        if (objection := self._objections(labels)[at]) is not None:
            return Refusal(permit.backend, RefusalCode.RESIDENCY, objection)
        return narrowed(permit.backend, labels)

    def bounds(self, labels: Labels) -> Bounds:
        """What these walls leave of the world for such a request."""
        key = (labels.data_classes, labels.unclassed, labels.residency)
        known = self._bounds.get(key)
        if known is None:
            wall = self.walls.meet(self.walls.effective(labels.data_classes, labels.unclassed), labels.residency)
            places = self.places.names(wall.process_in)
            known = self._bounds.keep(key, Bounds(places, wall.evidence is Evidence.ATTESTED))
        return known

    def _plan(self, facts: Facts) -> Plan:
        labels = facts.labels
        tags = self.declared_tags(labels) if labels.tags else ()
        settled = self._settle(facts, tags)
        effects = settled.effects
        latency_budget, first_token_budget = self._budgets(labels, effects)
        refusals, abilities, predictions, chances = self._abilities(facts, settled, latency_budget, first_token_budget)
        ranking = settled.ranking(abilities, predictions, labels)
        last = ranking.last_resort if labels.idempotent else None  # else nothing may run beside another attempt
        moment = None
        if last is not None:
            at = ranking.places[last][0]
            moment = starts_at(predictions[at], chances[at], latency_budget, first_token_budget)
        request_id, version = facts.request_id, self.version
        steps: list[Step] = []
        for at, name, reason, tells_chance, avoided in ranking.places:
            is_last = moment is not None and len(steps) == last
            # By position: by name it takes half as long again, and this is the busiest line of planning.
            steps.append(
                Step(
                    name,
                    Permit(request_id, name, version),
                    predictions[at],
                    chances[at],
                    f"{reason} ({chances[at]:.0%})" if tells_chance else reason,
                    is_last,
                    moment if is_last else None,
                    avoided,
                )
            )
        return Plan(
            request_id,
            version,
            settled.data_classes,
            latency_budget,
            first_token_budget,
            tuple(steps),
            refusals,
            effects.matched,
            (*_left_out(labels, tags), *effects.notes) if labels.tags else effects.notes,
            f"{steps[0].backend}: {steps[0].reason}" if steps else nobody(refusals),
            self._defaults.retry,
            effects.stream_failover or self._defaults.stream_failover,
            settled.hedge,
        )

    def _abilities(
        self, facts: Facts, settled: Settled, latency_budget: float, first_token_budget: float | None
    ) -> tuple[tuple[Refusal, ...], tuple[int, ...], list[Prediction], list[float]]:
        """All refusals; and for each standing what it is able to now, its prediction, and its chance to be in time."""
        log_latency = _log(latency_budget)
        log_first_token = None if first_token_budget is None else _log(first_token_budget)
        max_cost, conversation_backend, backends = settled.effects.max_cost, facts.conversation_backend, facts.backends
        refusals: list[Refusal] = []
        abilities: list[int] = []
        predictions: list[Prediction] = []
        chances: list[float] = []
        for standing in settled.standings:
            backend = backends[standing.index]
            name, prediction = standing.name, backend.prediction
            if backend.name != name:
                raise ValueError("the facts are not of this policy's backends, in their order")
            chance = prediction.p_done(log_latency, log_first_token)
            refusal = refused_now(standing.terms, backend, facts, max_cost)
            if refusal is not None:
                refusals.append(refusal)
                ability = UNABLE
            else:
                ability = LIKELY if chance >= (ENOUGH if prediction.known else ENOUGH_UNTRIED) else ABLE
                if name == conversation_backend:
                    ability += KEPT
            abilities.append(ability)
            predictions.append(prediction)
            chances.append(chance)
        return self._all_refusals(settled, refusals), tuple(abilities), predictions, chances

    def _all_refusals(self, settled: Settled, now: Sequence[Refusal]) -> tuple[Refusal, ...]:
        """In the configuration's order."""
        if not now:
            return settled.refusals
        return tuple(sorted((*settled.refusals, *now), key=lambda refusal: self._index[refusal.backend]))

    def _budgets(self, labels: Labels, effects: Effects) -> tuple[float, float | None]:
        """The caller's, else the last rule's, else the default's.

        A first-token budget that the caller did not ask for is for streams: nobody waits for the first token of an
        answer that arrives whole.
        """
        latency, first_token = labels.latency_budget, labels.first_token_budget
        if latency is None:
            latency = self._defaults.latency_budget if effects.latency_budget is None else effects.latency_budget
        if first_token is None and labels.streaming and labels.task is _GENERATE:
            first_token = effects.first_token_budget
            if first_token is None:
                first_token = self._defaults.first_token_budget
        return latency, first_token

    def _settle(self, facts: Facts, tags: tuple[tuple[str, str], ...]) -> Settled:
        judged = self._judge(facts.labels)
        outcomes = self._outcomes(facts, judged.data_classes, tags)
        key = judged, outcomes
        known = self._settled.get(key)
        if known is None:
            effects, order = self._rules.effects(outcomes), self._defaults.order
            settled = settle(self.terms, judged.data_classes, judged.refusals, judged.hedge, effects, order)
            known = self._settled.keep(key, settled)
        return known

    def _outcomes(self, facts: Facts, data_classes: tuple[str, ...], tags: tuple[tuple[str, str], ...]) -> Outcomes:
        """The conditions' outcomes. A request of several classes is judged once as each of them.

        A condition then holds if it holds for one of them, and fails if it fails for one.
        """
        labels = facts.labels
        latency = self._defaults.latency_budget if labels.latency_budget is None else labels.latency_budget
        first = self._defaults.first_token_budget if labels.first_token_budget is None else labels.first_token_budget
        if first is None:
            first = latency
        one, *others = data_classes or ("",)
        outcomes = self._conditions.outcomes(Situation(facts, one, data_classes, tags, latency, first))
        if others and self._conditions.reads_data_class:
            held, failed = outcomes
            for name in others:
                more = self._conditions.outcomes(Situation(facts, name, data_classes, tags, latency, first))
                held, failed = held | more.held, failed | more.failed
            outcomes = Outcomes(held & ~failed, failed)
        return outcomes

    def _judge(self, labels: Labels) -> _Judged:
        key = _JUDGED_BY(labels)
        known = self._judgements.get(key)
        if known is None:
            known = self._judgements.keep(key, self._judge_afresh(labels))
        return known

    def _judge_afresh(self, labels: Labels) -> _Judged:
        for name in labels.data_classes:
            if name not in self.walls.by_class:
                mend = one_of(name, self.walls.by_class)
                raise InvalidRequest(f"there is no data class {name!r} in the policy; {mend}")
        for name in labels.backends:
            if name not in self._index:
                raise InvalidRequest(f"there is no backend {name!r}; {one_of(name, self._index)}")
        refusals = tuple(
            refused_always(terms, objection, labels)
            for terms, objection in zip(self.terms, self._objections(labels), strict=True)
        )
        classes = self.walls.effective(labels.data_classes, labels.unclassed)
        return _Judged(classes, refusals, self._unhedged.isdisjoint(classes))

    def _objections(self, labels: Labels) -> tuple[str | None, ...]:
        """For each backend, why the walls keep these labels from it."""
        key = (labels.data_classes, labels.unclassed, labels.residency)
        known = self._walled.get(key)
        if known is None:
            classes = self.walls.effective(labels.data_classes, labels.unclassed)
            objections = (self.walls.objection(classes, labels.residency, terms.location) for terms in self.terms)
            known = self._walled.keep(key, tuple(objections))
        return known

    def declared_tags(self, labels: Labels) -> tuple[tuple[str, str], ...]:
        """A request's tags, as far as the policy declares them with these values; by name."""
        return tuple((name, value) for name, value in sorted(labels.tags.items()) if value in self._tags.get(name, ()))

    def effective_classes(self, labels: Labels) -> tuple[str, ...]:
        """The classes that hold for a request, the default included. Raises `InvalidRequest` for an unknown one."""
        return self._judge(labels).data_classes

    def cost(self, backend: str, prompt_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost at a backend, in US dollars."""
        price = self.terms[self._index[backend]].price
        return 0.0 if price is None else price.of(prompt_tokens, output_tokens)

    def may_queue(self, labels: Labels) -> bool:
        """Whether a request may be kept on disk: every class that holds says so. Raises as `effective_classes`."""
        return self._unqueued.isdisjoint(self.effective_classes(labels))

    def residency(self, value: str | Sequence[str] | Mapping[str, Sequence[str]]) -> Residency:
        """A caller's ``residency=`` as a narrowing. Raises `InvalidRequest` for a place that is not known.

        One place, or a list of them, bounds processing, storing and operators alike; a mapping has these keys and
        bounds only those it gives.
        """
        return self.places.read_residency(value)


def _left_out(labels: Labels, tags: Sequence[object]) -> tuple[str, ...]:
    """A note of undeclared tags. Neither name nor value: what nobody declared may be content."""
    left_out = len(labels.tags) - len(tags)
    return (f"{left_out} tag(s) left out: the policy does not declare them with these values",) if left_out else ()


# The text of the task, because an enum's hash is slow.
_JUDGED_BY = attrgetter(
    "data_classes",
    "unclassed",
    "residency",
    "backends",
    "task._value_",
    "model",
    "continues",
    "constrained",
    "logprobs",
)


def _log(budget: float) -> float:
    return log(budget) if budget > 0.0 else -inf
