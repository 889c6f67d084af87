"""What a policy says in vain: warnings of words that can never come to anything, or not to what they seem to say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields

from ..core.place import NOWHERE
from ..core.problem import Path, Problem, Severity
from .facts import BackendTerms
from .formula import MOST_STEPS, Effort
from .plan import StreamFailover
from .reach import Reach
from .rules import Rule
from .settings import DataClassSettings, PolicySettings, SetSettings
from .walls import Wall, Walls

_SETS = tuple(field.name for field in fields(SetSettings) if field.name != "max_cost")
"""What the last rule wins. Costs are not among them: the lowest holds."""


def judge_futility(
    settings: PolicySettings,
    terms: Sequence[BackendTerms],
    own_walls: dict[str, Wall],
    walls: Walls,
    rules: Sequence[Rule],
    unhedged: Collection[str],
    reach: Reach,
) -> list[Problem]:
    """All that is said in vain. Paths count from the policy; nothing here is an error."""
    found = [
        *_lax_classes(settings, own_walls, walls),
        *_overwritten(rules),
        *_constants(rules, reach),
        *_never_granted(rules, terms, settings, unhedged, reach),
    ]
    return [Problem(sentence, mend, path, Severity.WARNING) for sentence, mend, path in found]


_Found = Iterator[tuple[str, str, Path]]


def _lax_classes(settings: PolicySettings, own_walls: dict[str, Wall], walls: Walls) -> _Found:
    default = settings.default_data_class
    for name, written in settings.data_classes.items():
        path: Path = ("data_classes", name)
        for parent in written.narrows:
            for key in _laxer(own_walls[name], walls.by_class[parent]):
                if _is_written(written, key):
                    sentence = (
                        f"the class {name!r} permits more in {key} than {parent!r}, which it narrows: that is in vain"
                    )
                    yield sentence, f"write no more than {parent!r} permits, or leave `{key}` out", (*path, key)
        if default is None or default == name:
            continue
        laxer = _laxer(walls.by_class[name], walls.by_class[default])
        stricter = _laxer(walls.by_class[default], walls.by_class[name])
        if laxer and stricter:
            sentence = (
                f"the class {name!r} is stricter than the default {default!r} in {' and '.join(stricter)}, "
                f"but laxer in {' and '.join(laxer)}"
            )
            yield sentence, f"add `narrows: [{default}]` if it is to be the stricter one throughout", path


def _laxer(one: Wall, other: Wall) -> list[str]:
    """The keys in which one permits what the other does not; none where it permits nothing beyond this device."""
    if NOWHERE in (one.process_in, one.operators):
        return []
    keys = [
        key for key in ("process_in", "store_in", "operators") if not getattr(one, key).lies_within(getattr(other, key))
    ]
    return [*keys, "evidence"] if one.evidence < other.evidence else keys


def _is_written(written: DataClassSettings, key: str) -> bool:
    return getattr(written, key) is not None


def _overwritten(rules: Sequence[Rule]) -> _Found:
    for at, rule in enumerate(rules):
        for key in _SETS:
            if rule.settings.set is None or getattr(rule.settings.set, key) is None:
                continue
            for later in rules[at + 1 :]:
                sets = later.settings.set is not None and getattr(later.settings.set, key) is not None
                if sets and later.settings.when in (None, rule.settings.when):
                    sentence = f"{key} is always overwritten by the rule {later.name!r}, which comes later"
                    yield sentence, "put the general rule first, or remove this one's", ("rules", at, "set", key)
                    break


def _constants(rules: Sequence[Rule], reach: Reach) -> _Found:
    for at, rule in enumerate(rules):
        value = reach.constant(rule)
        if value is not None:
            mend = "remove `when`" if value else "remove the rule, or mend its condition"
            yield f"the condition is {str(value).lower()} whatever the facts", mend, ("rules", at, "when")


def _never_granted(
    rules: Sequence[Rule],
    terms: Sequence[BackendTerms],
    settings: PolicySettings,
    unhedged: Collection[str],
    reach: Reach,
) -> _Found:
    """Preferences, hedges and failovers that walls and other rules leave no backend for."""
    classes = [{name} for name in settings.data_classes] or [set[str]()]
    hedged = [names for names in classes if not names & set(unhedged)]
    effort = Effort(MOST_STEPS * 2)
    for at, rule in enumerate(rules):
        path: Path = ("rules", at)
        sets = rule.settings.set

        def granted(names: Collection[str], among: Iterable[int], rule: Rule = rule) -> Iterator[int]:
            return (each for each in among if reach.example(each, names, rule, effort) is not None)

        def two(names: Collection[str], *, continued: bool = False) -> bool:
            """Whether two backends may take a request of these classes, one of which continues what another began."""
            able = (each for each in range(len(terms)) if terms[each].continues or not continued)
            first = next(granted(names, able), None)
            others = (each for each in range(len(terms)) if each != first)
            return first is not None and next(granted(names, others), None) is not None

        for key, wanted in (("prefer", rule.prefer), ("avoid", rule.avoid)):
            if wanted and not any(next(granted(names, sorted(wanted)), None) is not None for names in classes):
                sentence = f"{key} is in vain: where this rule matches, none of these is ever permitted"
                yield sentence, "name another, or remove it", (*path, key)
        if sets is not None and sets.hedge is True and not any(two(names) for names in hedged):
            sentence = "no hedge can ever follow: where this rule matches, no second backend may be asked"
            yield sentence, "remove it, or permit a second backend", (*path, "set", "hedge")
        continues = sets is not None and sets.stream_failover is StreamFailover.CONTINUE
        if continues and not any(two(names, continued=True) for names in classes):
            sentence = "no stream can ever continue: where this rule matches, no second backend may take it over"
            yield sentence, "remove it, or permit a backend that continues", (*path, "set", "stream_failover")
