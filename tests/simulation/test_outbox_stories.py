"""An outbox's stories: the same each time, and with enough in them to be worth judging."""

from __future__ import annotations

from collections import Counter

from .outbox_judge import judge
from .outbox_lives import LIVES, tell


def test_a_seed_is_always_the_same_story() -> None:
    for seed in (4, 8):
        assert tell(seed).digest == tell(seed).digest
    assert tell(4).digest != tell(8).digest


def test_the_stories_have_outages_kills_tightened_walls_and_every_end_and_break_no_promise() -> None:
    seen: Counter[str] = Counter()
    for seed in range(2, 50, 4):
        story = tell(seed)
        assert judge(story) == []
        seen.update(f"{entry.state} {entry.ending}" for entry in story.entries.values())
        seen["killed"] += sum(life.killed for life in story.lives)
        seen["tightened"] += sum(life.world.classes != story.world.classes for life in story.lives[:LIVES])
        seen["offline"] += sum("offline" in life.links for life in story.lives)
        seen["told"] += len(story.told)
    print(seen)
    wanted = {
        "answered None",
        "queued None",
        "dead expired",
        "dead cancelled",
        "killed",
        "tightened",
        "offline",
        "told",
    }
    assert wanted <= set(seen)
