"""The store against a dictionary: whatever is done to both, in whatever order, they say the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from edgewise.core.request import Priority
from edgewise.core.settings import FilePath
from edgewise.policies.settings import EncryptionSettings, WhenFull
from edgewise.router import OutboxFull
from edgewise.router.outbox import Ending, Lease, Quota, Receipt, State, Store
from edgewise.router.outbox.entry import KEEPS_CONTENT, RANKS

from .conftest import entry

LONGEST = 900.0
MOST_ENTRIES, MOST_BYTES = 5, 400


@dataclass
class Kept:
    """What the model knows of one request."""

    number: int
    content: str
    priority: Priority
    order_key: str | None
    expires_at: float
    state: State = State.QUEUED
    ending: Ending | None = None
    not_before: float = 0.0
    answer: str | None = None
    taken: bool = False

    @property
    def has_content(self) -> bool:
        """Whether the prompt is still there."""
        return self.state is State.QUEUED or self.ending in KEEPS_CONTENT

    @property
    def bytes(self) -> int:
        """What it takes."""
        return len(self.content) if self.has_content else len(self.answer or "")


class OutboxAndDictionary(RuleBasedStateMachine):
    """Both do the same; now and then the store's process is replaced by another, which may want encryption."""

    receipts = Bundle("receipts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "outbox.db"
        self.encryption: EncryptionSettings | None = None
        self.store = Store(self.path)
        self.store.database.create()
        self.lease = Lease(self.store.database, "us")
        self.model: dict[str, Kept] = {}
        self.count = 0
        self.now = 1000.0

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.store.close()
        self.folder.cleanup()

    def queued(self) -> dict[str, Kept]:
        """Those that wait, oldest first."""
        return {name: kept for name, kept in self.model.items() if kept.state is State.QUEUED}

    def end(self, kept: Kept, ending: Ending) -> None:
        """It became a dead letter."""
        kept.state, kept.ending = State.DEAD, ending

    def expire(self) -> None:
        """The model's time goes on."""
        for kept in self.queued().values():
            if kept.expires_at <= self.now:
                self.end(kept, Ending.EXPIRED)

    @rule(
        target=receipts,
        size=st.one_of(st.integers(1, 40), st.integers(1, 450)),
        priority=st.sampled_from(Priority),
        order_key=st.sampled_from([None, "a", "b"]),
        ttl=st.integers(1, 2000),
        when_full=st.sampled_from(WhenFull),
    )
    def submit(self, size: int, priority: Priority, order_key: str | None, ttl: int, when_full: WhenFull) -> object:
        """Queue one; the model makes room as is written down."""
        name = f"r{self.count}"
        self.count += 1
        victims = self.room(size, priority, when_full)
        new = entry(name, content="x" * size, at=self.now, ttl=ttl, priority=priority, order_key=order_key)
        try:
            assert self.store.add(new, Quota(MOST_ENTRIES, MOST_BYTES, when_full)) == name
        except OutboxFull:
            assert victims is None
            return multiple()
        assert victims is not None
        for victim in victims:
            self.end(victim, Ending.DROPPED)
        self.model[name] = Kept(self.count, "x" * size, priority, order_key, self.now + ttl)
        return name

    def room(self, size: int, priority: Priority, when_full: WhenFull) -> list[Kept] | None:
        """Who gives way, or ``None`` where there is no room to be had."""
        waiting = list(self.queued().values())
        entries, held = len(waiting), sum(kept.bytes for kept in self.model.values())
        if when_full is WhenFull.REJECT:
            waiting = []
        elif when_full is WhenFull.DROP_LOWEST:
            waiting = [kept for kept in waiting if RANKS[kept.priority] <= RANKS[priority]]
            waiting.sort(key=lambda kept: RANKS[kept.priority])
        victims: list[Kept] = []
        while entries + 1 > MOST_ENTRIES or held + size > MOST_BYTES:
            if not waiting:
                return None
            victims.append(waiting.pop(0))
            entries, held = entries - 1, held - victims[-1].bytes
        return victims

    @rule(receipt=receipts, answer=st.text("abc", max_size=30))
    def answer(self, receipt: str, answer: str) -> None:
        """An answer comes, perhaps too late."""
        kept = self.model[receipt]
        assert self.store.finish(Receipt(receipt), answer, self.now) == (kept.state is State.QUEUED)
        if kept.state is State.QUEUED:
            kept.state, kept.answer = State.ANSWERED, answer

    @rule(receipt=receipts, ending=st.sampled_from([Ending.CANCELLED, Ending.POISON, Ending.REFUSED]))
    def bury(self, receipt: str, ending: Ending) -> None:
        """It is given up."""
        kept = self.model[receipt]
        assert self.store.bury(receipt, ending, "why", self.now) == (kept.state is State.QUEUED)
        if kept.state is State.QUEUED:
            self.end(kept, ending)

    @rule(receipt=receipts)
    def revive(self, receipt: str) -> None:
        """It is tried again."""
        kept = self.model[receipt]
        assert self.store.revive(receipt, self.now + 100) == kept.has_content
        if kept.has_content:
            if kept.state is State.DEAD:
                kept.expires_at = self.now + 100
            kept.state, kept.ending, kept.not_before, kept.taken = State.QUEUED, None, 0.0, False

    @rule(receipt=receipts, wait=st.integers(0, 300), broken=st.booleans())
    def send_in_vain(self, receipt: str, wait: int, broken: bool) -> None:
        """It is sent, and has to wait."""
        assert self.lease.take(self.now)
        began = self.store.begin_send(Receipt(receipt), self.lease, self.now)
        kept = self.model[receipt]
        assert began == (kept.state is State.QUEUED)
        if began:
            self.store.postpone(Receipt(receipt), self.now + wait, "why", broken=broken)
            kept.not_before = self.now + wait

    @rule(receipt=receipts)
    def take(self, receipt: str) -> None:
        """The application has dealt with it, if it has ended."""
        if self.model[receipt].state is not State.QUEUED:
            self.store.take(Receipt(receipt))
            self.model[receipt].taken = True

    @rule(receipt=consumes(receipts))
    def drop(self, receipt: str) -> None:
        """A person erases it."""
        assert self.store.drop(receipt, self.now)
        kept = self.model[receipt]
        kept.state, kept.ending, kept.answer, kept.taken = State.DEAD, Ending.DROPPED, None, True

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds
        self.store.expire(self.now)
        self.expire()

    @rule()
    def wake(self) -> None:
        """The link is back."""
        self.store.wake()
        for kept in self.queued().values():
            kept.not_before = 0.0

    @rule(key=st.sampled_from([None, None, "1" * 64, "2" * 64]))
    def another_process(self, key: str | None) -> None:
        """The file is closed and opened again, now and then with a key that was not there before."""
        self.store.close()
        if key is not None:
            keys = self.path.with_name("keys")
            older = keys.read_text() if self.encryption is not None else ""
            keys.write_text(f"{key}\n{older}")
            self.encryption = EncryptionSettings(key_file=FilePath(str(keys)))
        self.store = Store(self.path, self.encryption)
        self.lease = Lease(self.store.database, "us")

    @invariant()
    def the_same_is_kept(self) -> None:
        """States, contents and answers agree."""
        found = {str(each.receipt): each for each in self.store.all(self.now)}
        assert list(found) == list(self.model)
        for name, kept in self.model.items():
            each = found[name]
            assert (each.state, each.ending, each.answer, each.taken) == (
                kept.state,
                kept.ending,
                kept.answer,
                kept.taken,
            )
            assert each.content == (kept.content if kept.has_content else None)
            assert each.bytes == kept.bytes

    @invariant()
    def the_same_is_due(self) -> None:
        """Order and turns agree."""
        waiting = self.queued()
        first: dict[str, int] = {}
        for kept in waiting.values():
            if kept.order_key is not None:
                first.setdefault(kept.order_key, kept.number)
        due = [
            name
            for name, kept in waiting.items()
            if kept.not_before <= self.now and (kept.order_key is None or first[kept.order_key] == kept.number)
        ]
        due.sort(key=lambda name: (-RANKS[waiting[name].priority], waiting[name].number))
        assert [each.receipt for each in self.store.due(self.now, LONGEST)] == due


TestOutboxAgainstDictionary = OutboxAndDictionary.TestCase
TestOutboxAgainstDictionary.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
