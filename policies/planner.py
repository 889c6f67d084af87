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
from .conditions import ConditionSet, Situation
from .facts import BackendTerms, Facts
from .order import Candidate, in_order, reasons
from .places import Places
from .plan import Plan, Retry, Step, StreamFailover
from .reach import Reach
from .refusals import as_if_online, limited_by_the_link, narrowed, nobody, refused_always, refused_now
from .rules import Effects, Rule, RuleSet
from .schedule import reserve
from .settings import Objective
from .walls import Walls

_REMEMBERED = 512

# Python 3.11 runs code to look an enum's member up, which is much beside what planning costs.
_GENERATE = Task.GENERATE
_COUNT_TOKENS = Task.COUNT_TOKENS


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where neither the caller nor a rule says otherwise. Budgets are seconds."""

    latency_budget: float
    first_token_budget: float | None
    order: tuple[Objective, ...]
    retry: Retry
    stream_failover: StreamFailover


@dataclass(frozen=True, slots=True)
class _Judged:
    """What labels alone decide: the effective classes, whether they may be hedged, and why which backend cannot be."""

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
        self._judgements: dict[tuple[object, ...], _Judged] = {}
        self._bounds: dict[tuple[object, ...], Bounds] = {}
        self._walled: dict[tuple[object, ...], tuple[str | None, ...]] = {}

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
        outcomes = self._outcomes(facts, self._judge(facts.labels).data_classes, self.declared_tags(facts.labels))
        return tuple(True if rule.condition is None else outcomes[rule.condition] for rule in self.rules)

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
            if len(self._bounds) >= _REMEMBERED:
                self._bounds.clear()
            wall = self.walls.meet(self.walls.effective(labels.data_classes, labels.unclassed), labels.residency)
            places = self.places.names(wall.process_in)
            known = self._bounds[key] = Bounds(places, wall.evidence is Evidence.ATTESTED)
        return known

    def _plan(self, facts: Facts) -> Plan:
        labels = facts.labels
        judged = self._judge(labels)
        tags = self.declared_tags(labels) if labels.tags else ()
        effects = self._rules.effects(self._outcomes(facts, judged.data_classes, tags))
        latency_budget, first_token_budget = self._budgets(labels, effects)
        refusals: list[Refusal] = []
        candidates: list[Candidate] = []
        log_latency = log(latency_budget) if latency_budget > 0.0 else -inf
        log_first_token = None
        if first_token_budget is not None:
            log_first_token = log(first_token_budget) if first_token_budget > 0.0 else -inf
        each_backend = zip(self.terms, facts.backends, judged.refusals, effects.refusals, strict=True)
        for at, (terms, backend, always, by_rule) in enumerate(each_backend):
            if backend.name != terms.name:
                raise ValueError("the facts are not of this policy's backends, in their order")
            cost = 0.0
            if terms.price is not None and labels.task is not _COUNT_TOKENS:  # nobody is charged for counting
                cost = terms.price.of(labels.prompt_tokens, labels.max_output_tokens)
            refusal = always or by_rule or refused_now(terms, backend, facts, cost, effects.max_cost)
            if refusal is not None:
                refusals.append(refusal)
                continue
            prediction = backend.prediction
            p_done = prediction.total.probability_below(log_latency)
            if log_first_token is not None:
                p_done = min(p_done, prediction.first.probability_below(log_first_token))
            latency = (prediction.first if labels.streaming else prediction.total).median()
            strength, preferred_by = effects.preferred.get(at, _NOT_PREFERRED)
            candidates.append(
                Candidate(
                    at,
                    terms,
                    prediction,
                    p_done,
                    1.0 - terms.quality,
                    latency,
                    cost,
                    strength,
                    preferred_by,
                    effects.avoided.get(at),
                    terms.name == facts.conversation_backend,
                )
            )
        ordered = in_order(candidates, effects.order or self._defaults.order)
        last = reserve(ordered, latency_budget, first_token_budget, labels.idempotent)
        steps = self._steps(facts.request_id, ordered, last)
        return Plan(
            request_id=facts.request_id,
            policy_version=self.version,
            data_classes=judged.data_classes,
            latency_budget=latency_budget,
            first_token_budget=first_token_budget,
            steps=steps,
            refusals=tuple(refusals),
            matched_rules=effects.matched,
            notes=(*_left_out(labels, tags), *effects.notes) if labels.tags else effects.notes,
            reason=f"{steps[0].backend}: {steps[0].reason}" if steps else nobody(refusals),
            retry=self._defaults.retry,
            stream_failover=effects.stream_failover or self._defaults.stream_failover,
            hedge=judged.hedge and effects.hedge is not False,
        )

    def _steps(self, request_id: str, ordered: Sequence[Candidate], last: tuple[int, float] | None) -> tuple[Step, ...]:
        last_at, starts_at = last or (None, None)
        steps: list[Step] = []
        for at, (each, reason) in enumerate(zip(ordered, reasons(ordered), strict=True)):
            name = each.terms.name
            permit = Permit(request_id, name, self.version)
            is_last = at == last_at
            # By position: by name it takes half as long again, and this is the busiest line of planning.
            steps.append(
                Step(
                    name,
                    permit,
                    each.prediction,
                    each.p_done,
                    reason,
                    is_last,
                    starts_at if is_last else None,
                    each.avoided_by is not None,
                )
            )
        return tuple(steps)

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

    def _outcomes(
        self, facts: Facts, data_classes: tuple[str, ...], tags: tuple[tuple[str, str], ...]
    ) -> tuple[bool | None, ...]:
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
            for name in others:
                more = self._conditions.outcomes(Situation(facts, name, data_classes, tags, latency, first))
                outcomes = tuple(
                    None if a is None or b is None else a or b for a, b in zip(outcomes, more, strict=True)
                )
        return outcomes

    def _judge(self, labels: Labels) -> _Judged:
        key = _JUDGED_BY(labels)
        known = self._judgements.get(key)
        if known is None:
            if len(self._judgements) >= _REMEMBERED:
                self._judgements.clear()
            known = self._judgements[key] = self._judge_afresh(labels)
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
            if len(self._walled) >= _REMEMBERED:
                self._walled.clear()
            classes = self.walls.effective(labels.data_classes, labels.unclassed)
            known = self._walled[key] = tuple(
                self.walls.objection(classes, labels.residency, terms.location) for terms in self.terms
            )
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
    "data_classes", "unclassed", "residency", "backends", "task._value_", "continues", "constrained", "logprobs"
)

_NOT_PREFERRED = (0, "")
