"""Why a backend cannot take a request: what its labels alone decide, and what is so now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.decision import Refusal, RefusalCode
from ..core.request import Labels, Task
from .facts import BackendFacts, BackendTerms, Facts, LinkFacts, LinkState

# Python 3.11 runs code to look an enum's member up, which is much beside what planning costs.
_OFFLINE = LinkState.OFFLINE
_COUNT_TOKENS = Task.COUNT_TOKENS
_BY_THE_LINK = frozenset({RefusalCode.OFFLINE, RefusalCode.INTERCEPTED})


def refused_always(terms: BackendTerms, objection: str | None, labels: Labels) -> Refusal | None:
    """Why not, whatever the facts. ``objection`` is what the walls say."""
    if objection is not None:
        return Refusal(terms.name, RefusalCode.RESIDENCY, objection)
    lacks = _lacking(terms, labels)
    return narrowed(terms.name, labels) or (
        None if lacks is None else Refusal(terms.name, RefusalCode.CAPABILITY, f"it cannot {lacks}")
    )


def narrowed(backend: str, labels: Labels) -> Refusal | None:
    """Why not, where the caller named other backends."""
    if not labels.backends or backend in labels.backends:
        return None
    return Refusal(backend, RefusalCode.CALLER_NARROWED, "the caller asked for " + ", ".join(labels.backends))


def refused_now(terms: BackendTerms, backend: BackendFacts, facts: Facts, max_cost: float | None) -> Refusal | None:
    """Why not now: too long, too dear, out of reach, not ready. ``max_cost`` is in US dollars."""
    # The estimate is rough; only what is too long beyond doubt is refused here. The backend counts exactly.
    too_long = terms.context_tokens is not None and facts.labels.prompt_tokens / 2 > terms.context_tokens
    if too_long and facts.labels.task is not _COUNT_TOKENS:  # how much too long, may be asked
        return Refusal(
            terms.name,
            RefusalCode.CONTEXT_LENGTH,
            f"about {facts.labels.prompt_tokens} tokens do not fit into its context of {terms.context_tokens}",
        )
    if max_cost is not None and (cost := terms.cost(facts.labels)) > max_cost:
        sentence = f"it would cost about {cost:.2g} US dollars; at most {max_cost:.2g} may be spent"
        return Refusal(terms.name, RefusalCode.PRICE, sentence)
    if facts.link.state is _OFFLINE and terms.remote and _needs_the_link(terms, backend, facts):
        return Refusal(terms.name, RefusalCode.OFFLINE, "it needs the network, and this device is offline")
    if backend.not_ready is not None:
        return Refusal(terms.name, backend.not_ready.code, backend.not_ready.sentence)
    return None


def _needs_the_link(terms: BackendTerms, backend: BackendFacts, facts: Facts) -> bool:
    return facts.link.forced or not (terms.works_offline or backend.judged_alone)


def limited_by_the_link(facts: Facts) -> bool:
    """Whether a better link would change something."""
    return facts.link.state is _OFFLINE or any(_waits_for_the_link(backend) for backend in facts.backends)


def as_if_online(facts: Facts) -> Facts:
    """The same facts, were the link in order."""
    backends = tuple(
        replace(backend, not_ready=None) if _waits_for_the_link(backend) else backend for backend in facts.backends
    )
    return replace(facts, link=LinkFacts(LinkState.ONLINE, facts.link.metered, 100, 0.0), backends=backends)


def _waits_for_the_link(backend: BackendFacts) -> bool:
    return backend.not_ready is not None and backend.not_ready.code in _BY_THE_LINK


def nobody(refusals: Sequence[Refusal]) -> str:
    """One sentence where every backend was refused."""
    why = "; ".join(f"{refusal.backend}: {refusal.sentence}" for refusal in refusals)
    return f"no backend may take it ({why})" if why else "no backend is configured"


def _lacking(terms: BackendTerms, labels: Labels) -> str | None:
    """What a request needs and a backend cannot do."""
    if labels.task not in terms.tasks:
        return labels.task.value
    if labels.model and terms.models is not None and labels.model not in terms.models:
        # The name is not told: a caller who mistakes the argument may have put content there.
        return f"run the model asked for; it has {', '.join(sorted(terms.models))}"
    if labels.continues and not terms.continues:
        return "continue a text of the assistant"
    if labels.constrained and not terms.constrains:
        return "hold to a response format"
    if labels.logprobs and not terms.logprobs:
        return "give log-probabilities"
    return None
