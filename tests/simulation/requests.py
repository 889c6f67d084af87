"""What the callers of a world ask, and how they behave."""

from __future__ import annotations

import random
from dataclasses import dataclass

from edgewise.router import Message

from .world import World

SECRET = "plover"
"""Stands in every content. No error, decision or log may hold it."""

SAID = "gull"
"""Stands in every answer. No error's text, decision or log may hold it."""

STOP = f"{SAID}|stop|"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a caller, who may be slow, leave early or change his mind. Times are seconds."""

    number: int
    at: float
    task: str
    long: bool
    turns: int
    classes: tuple[str, ...]
    message_classes: tuple[str | None, ...]
    latency_budget: float | None
    first_token_budget: float | None
    priority: str
    tag: str | None
    residency: list[str] | None
    backends: tuple[str, ...]
    idempotent: bool
    conversation: str | None
    stop: bool
    logprobs: bool
    words: int
    cancel_after: float | None
    read_pause: float
    leave_after: int | None
    restarts: bool

    @property
    def content(self) -> str:
        """What the caller says; unlike what any other says."""
        text = f"{SECRET}{self.number}: say something about wading birds"
        return text + " and their nests" * 150 if self.long else text

    @property
    def messages(self) -> list[Message]:
        """The conversation, the newest turn last."""
        turns = [Message.user if at % 2 == 0 else Message.assistant for at in range(self.turns)]
        return [make(self.content, data_class=each) for make, each in zip(turns, self.message_classes, strict=True)]


def make_asks(world: World, count: int) -> list[Ask]:
    """A world's requests, in the order of their times."""
    source = random.Random(f"requests {world.seed}")
    times = sorted(source.uniform(0.0, world.duration) for _ in range(count))
    return [_ask(source, world, number, at) for number, at in enumerate(times)]


def _ask(source: random.Random, world: World, number: int, at: float) -> Ask:
    task = source.choices(
        ["generate", "stream", "embed", "infer", "classify", "count_tokens"],
        [20, 80, 0, 0, 0, 0] if world.lossy else [35, 40, 8, 7, 5, 5],
    )[0]
    generates = task in ("generate", "stream")
    names = list(world.classes)
    turns = source.choice([1, 1, 1, 3]) if generates else int(task == "count_tokens")
    chance = source.random
    return Ask(
        number=number,
        at=at,
        task=task,
        long=task != "infer" and chance() < 0.1,
        turns=turns,
        classes=_classes(source, names),
        message_classes=tuple(source.choice(names) if chance() < 0.1 else None for _ in range(turns)),
        latency_budget=source.choice([None, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0]),
        first_token_budget=source.choice([0.1, 0.3, 1.0]) if chance() < 0.2 else None,
        priority=source.choice(["low", "normal", "high"]),
        tag=source.choice([None, "a", "b"]),
        residency=source.choice([["EU"], ["DE"], ["US", "CH"]]) if chance() < 0.05 else None,
        backends=(source.choice(world.backends).name,) if chance() < 0.05 else (),
        idempotent=chance() < 0.85,
        conversation=f"talk-{source.randint(0, 3)}" if chance() < 0.1 else None,
        stop=generates and chance() < 0.1,
        logprobs=generates and chance() < 0.05,
        words=source.choice([1, 3, 6, 12, 40]) if chance() < 0.5 else 20 if world.lossy else 5,
        cancel_after=source.choice([0.0, 0.01, 0.1, 1.0, 5.0]) if chance() < 0.1 else None,
        read_pause=source.choice([0.01, 0.5, 3.0]) if task == "stream" and chance() < 0.1 else 0.0,
        leave_after=source.randint(1, 4) if task == "stream" and chance() < 0.1 else None,
        restarts=task == "stream" and chance() < 0.3,
    )


def _classes(source: random.Random, names: list[str]) -> tuple[str, ...]:
    dice = source.random()
    if dice < 0.2:
        return ()
    return ("public",) if dice < 0.7 else tuple(source.sample(names, source.choice([1, 1, min(2, len(names))])))
