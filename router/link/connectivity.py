"""The link: judged from the evidence, or as an application says it is."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable, Iterable

from ...backends import Backend
from ...core.decision import RefusalCode
from ...core.errors import InvalidRequest
from ...core.failure import AttemptError, PathFault
from ...policies.facts import LinkFacts, LinkState, NotReady
from ..snapshot import JsonValue, table
from .damping import FLAPPING, Damping
from .endpoints import Endpoints
from .judgement import Judgement, judge
from .network import Network
from .probing import Interest
from .reach import OF_THE_NETWORK, Reach, Underway, told
from .status import LinkStatus

KEEN_FOR = 3.0
"""Seconds for which a request's wish to know lasts."""
MILD_FOR = 60.0
"""Seconds for which a look at the link's does."""

FACTS_KEPT = 0.1
"""Seconds for which what policies see stays the same, if nothing happens."""

_CERTAIN = 100
_REPORTED = 95

_CODES = {
    PathFault.NO_ROUTE: RefusalCode.OFFLINE,
    PathFault.NO_NAME: RefusalCode.OFFLINE,
    PathFault.INTERCEPTED: RefusalCode.INTERCEPTED,
}


class Connectivity:
    """How far the network reaches, and whether each remote endpoint can be reached.

    It is judged without being asked, and costs a request next to nothing. Nothing is sent while all is well, and
    nothing at all while nobody wants to know. Belongs to the event loop that makes it.
    """

    def __init__(self, backends: Iterable[Backend], network: Network, random_source: random.Random) -> None:
        self._loop = asyncio.get_running_loop()
        self._forced: LinkState | None = None
        self._said: tuple[LinkState, float] | None = None
        self._metered: bool | None = None
        self._asked_at = self._read_at = -math.inf
        self._listeners: list[Callable[[LinkStatus], None]] = []
        self._damping = Damping(self._loop.time)
        self._judge_due: asyncio.TimerHandle | None = None
        self._judgement = Judgement(LinkState.ONLINE, 0, "")
        self._state = LinkState.ONLINE
        self._since = self._loop.time()
        self._something_lost = False
        self._last_told: object = None
        self._facts: LinkFacts | None = None
        self._facts_at = 0.0
        self._endpoints = Endpoints(backends, network, random_source, self._interest, self._judge)
        self._endpoints.start()
        self._judge()

    @property
    def state(self) -> LinkState:
        """The link's state now."""
        self._look()
        return self._state

    @property
    def status(self) -> LinkStatus:
        """The state and every endpoint's, each with its age, how sure it is, and why."""
        self._look()
        return self._status()

    def force(self, state: LinkState | str | None) -> None:
        """Say what the link is: ``online``, ``limited``, ``offline`` (the airplane switch); ``None`` lets it be judged.

        Forced offline, no attempt starts at a remote backend any more; those that run already are not stopped. Forced
        otherwise, no backend is left out for the way to it. Raises `InvalidRequest` for another word.
        """
        self._forced = None if state is None else _read(state)
        self._judge()

    def set_metered(self, metered: bool | None) -> None:
        """Say whether the link costs by volume; ``None`` leaves it to the operating system.

        Where neither says so, it counts as metered. Raises `InvalidRequest` for anything else.
        """
        if metered is not None and not isinstance(metered, bool):
            raise InvalidRequest(f"metered is True, False or None, not of type {type(metered).__name__}")
        self._metered = metered
        self._judge()

    def report(self, state: LinkState | str | None = None, *, changed: bool = False) -> None:
        """Feed what the application knows, such as its own operating system's word for it.

        ``offline`` is believed until something answers, which is asked while somebody wants to know; ``limited`` until
        the next report; ``online`` is a reason to ask, and no proof. ``changed``: the device is on another network, so
        connections are renewed. Raises `InvalidRequest` for another word, or where nothing is said.
        """
        if not isinstance(changed, bool):
            raise InvalidRequest(f"changed is True or False, not of type {type(changed).__name__}")
        if state is None and not changed:
            raise InvalidRequest("nothing is reported; give 'online', 'limited' or 'offline', or changed=True")
        if state is not None:
            self._said = (_read(state), self._loop.time())
        if changed:
            self._endpoints.network_changed()
        if self._said is not None and self._said[0] is LinkState.OFFLINE:
            self._endpoints.suspect_underway()
        else:
            self._endpoints.seek_lost()
        self._judge()

    async def check(self) -> LinkStatus:
        """Ask every remote endpoint now; the status when each has answered, or has not."""
        await self._endpoints.check()
        return self.status

    def subscribe(self, listener: Callable[[LinkStatus], None]) -> Callable[[], None]:
        """Have ``listener`` called, within the event loop, at each change; returns what ends that.

        A change is one of the state, of who pays, or of whether an endpoint can be reached. What a listener raises
        goes to the event loop's exception handler.
        """
        if not callable(listener):
            raise InvalidRequest("a listener is a function that takes a LinkStatus")
        self._listeners.append(listener)
        self._watch()

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    async def changes(self) -> AsyncGenerator[LinkStatus, None]:
        """The status now, and anew at each change. Whoever reads slowly gets the latest, not each one between."""
        latest = self.status
        news = asyncio.Event()
        news.set()

        def hear(status: LinkStatus) -> None:
            nonlocal latest
            latest = status
            news.set()

        unsubscribe = self.subscribe(hear)
        try:
            while True:
                await news.wait()
                news.clear()
                yield latest
        finally:
            unsubscribe()

    # From here on: for the router itself.

    def snapshot(self) -> JsonValue:
        """When the link was lost of late, how long each endpoint takes to answer, and which have ever answered."""
        reaches = {reach.label: reach.snapshot() for reach in self._endpoints.reaches}
        return {"damping": self._damping.snapshot(), "endpoints": reaches}

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back. Raises `Unreadable`."""
        stored = table(value)
        self._damping.restore(stored.get("damping"), shift)
        reaches = table(stored, "endpoints")
        for reach in self._endpoints.reaches:
            if reach.label in reaches:
                reach.restore(reaches[reach.label])
        self._judge()

    def facts(self) -> LinkFacts:
        """The link as policies see it, for a request that is being decided: it wants to know at once."""
        self._asked_at = self._loop.time()
        self._seek()
        return self._seen(self._asked_at)

    def outlook(self) -> LinkFacts:
        """The same for a request that is not made yet: a look."""
        self._look()
        return self._seen(self._read_at)

    def _seen(self, now: float) -> LinkFacts:
        # Clocks are slow on some machines, and requests come in bursts.
        if self._facts is None or now - self._facts_at > FACTS_KEPT:
            forced = self._forced is not None
            metered = self._is_metered() is not False
            self._facts = LinkFacts(self._state, metered, self._confidence(), self._age(), forced)
            self._facts_at = now
        return self._facts

    def keep_watching(self) -> None:
        """Whoever subscribes for long calls this now and then: a sleep, for one, shows by looking alone."""
        self._watch()

    def reach(self, backend: str) -> Reach | None:
        """What is known of the way to a backend; ``None`` for one that needs no network."""
        return self._endpoints[backend]

    def objection(self, reach: Reach | None) -> str | None:
        """Why an attempt would only cost time there now."""
        if reach is None:
            return None
        if self._forced is not None:
            return "the link is switched off" if self._forced is LinkState.OFFLINE else None
        return told(reach.fault, reach.label) if reach.fault in OF_THE_NETWORK else None

    def begun(self, reach: Reach, call: Underway) -> None:
        """A call to the endpoint starts; it ends by ``reach.end``."""
        reach.begin(call)
        self._endpoints.begun(reach)

    def answered(self, reach: Reach) -> None:
        """A call was answered."""
        self._endpoints.answered(reach)

    def failed(self, reach: Reach, error: AttemptError) -> None:
        """A call failed."""
        self._endpoints.failed(reach, error)

    async def stop(self) -> None:
        """End all watching and asking."""
        if self._judge_due is not None:
            self._judge_due.cancel()
        await self._endpoints.stop()

    def _interest(self) -> Interest:
        now = self._loop.time()
        if now - self._asked_at <= KEEN_FOR:
            return Interest.KEEN
        watched = bool(self._listeners) or now - self._read_at <= MILD_FOR
        return Interest.MILD if watched else Interest.NONE

    def _look(self) -> None:
        """Somebody looks: what is lost is asked for at its own pace, however often."""
        self._read_at = self._loop.time()
        self._watch()

    def _watch(self) -> None:
        """Notice what only shows by looking, and have somebody ask for what is lost, or is said to be."""
        self._endpoints.refresh()
        if self._something_lost or self._is_said_offline():
            self._endpoints.keep_asking(everything=self._is_said_offline())

    def _seek(self) -> None:
        """A request wants to know: the same, and ask now."""
        self._endpoints.refresh()
        if self._something_lost:
            self._endpoints.seek_lost()
        if self._is_said_offline():
            self._endpoints.seek_any()

    def _judge(self) -> None:
        """Judge the evidence anew, and tell who listens what is different."""
        self._facts = None
        reaches = self._endpoints.reaches
        attachment = self._endpoints.attachment
        self._forget_what_was_disproved(reaches)
        self._judgement = self._heed(judge(reaches, attached=attachment is None or bool(attachment.addresses)))
        state, again_at = self._damping.told(self._judgement.state, self._silent_since())
        if self._judge_due is not None:
            self._judge_due.cancel()
        self._judge_due = None if again_at is None else self._loop.call_at(again_at, self._judge)
        state = self._forced or state
        if state is not self._state:
            self._state, self._since = state, self._loop.time()
        self._something_lost = any(reach.fault is not None or reach.unproven for reach in reaches)
        for reach in reaches:
            reach.judged_alone = reach.endpoint is not None and not (reach.over_network and self._is_said_offline())
            reach.refusal = None if self._forced is not None else self._refusal(reach)
        self._tell()

    def _forget_what_was_disproved(self, reaches: Iterable[Reach]) -> None:
        """What the application said of being offline holds until something answers."""
        if self._said is not None and self._said[0] is LinkState.OFFLINE:
            said_at = self._said[1]
            if any(reach.over_network and reach.heard_at > said_at for reach in reaches):
                self._said = None

    def _heed(self, judgement: Judgement) -> Judgement:
        """The judgement with what the application said."""
        if self._said is None:
            return judgement
        said = self._said[0]
        if said is LinkState.OFFLINE and judgement.state is not LinkState.OFFLINE:
            return Judgement(said, _REPORTED, "the application reports that this device is offline")
        if said is LinkState.LIMITED and judgement.state is LinkState.ONLINE:
            return Judgement(said, _REPORTED, "the application reports that the link is limited")
        return judgement

    def _silent_since(self) -> float:
        """Since when nothing was heard, if that is why the link counts as lost; else now."""
        now, by = self._loop.time(), self._judgement.by
        if by is None or by.fault is not PathFault.SILENT:
            return now
        silent = min(reach.age_of_life() for reach in self._endpoints.reaches)
        return now if silent == math.inf else now - silent

    def _is_said_offline(self) -> bool:
        return self._said is not None and self._said[0] is LinkState.OFFLINE

    def _refusal(self, reach: Reach) -> NotReady | None:
        fault = reach.fault
        if fault is None:
            return None
        offline = self._judgement.state is LinkState.OFFLINE and fault in OF_THE_NETWORK
        code = RefusalCode.OFFLINE if offline else _CODES.get(fault, RefusalCode.UNREACHABLE)
        sentence = told(fault, reach.label)
        return NotReady(code, f"this device is offline: {sentence}" if offline else sentence)

    def _confidence(self) -> int:
        if self._forced is not None:
            return _CERTAIN
        by = self._witness()
        return self._judgement.confidence_percent if by is None else by.confidence()

    def _age(self) -> float:
        by = None if self._forced is not None else self._witness()
        age = None if by is None else by.age()
        return self._loop.time() - self._since if age is None else age

    def _witness(self) -> Reach | None:
        """Whose evidence the state rests on: for a link that works, whoever was heard last."""
        by = self._judgement.by
        if by is None or self._judgement.state is not LinkState.ONLINE:
            return by
        return min(self._endpoints.reaches, key=Reach.age_of_life)

    def _is_metered(self) -> bool | None:
        if self._metered is not None or self._endpoints.attachment is None:
            return self._metered
        return self._endpoints.attachment.metered

    def _status(self) -> LinkStatus:
        why = self._judgement.why
        if self._forced is not None:
            why = "the application says so"
        elif self._state is not self._judgement.state:
            losses = self._damping.losses
            comes_and_goes = (
                f"it was lost {losses} times within a minute" if losses >= FLAPPING else "it has just come back"
            )
            why = f"{why}, but {comes_and_goes}"
        return LinkStatus(
            state=self._state,
            forced=self._forced is not None,
            metered=self._is_metered(),
            confidence_percent=self._confidence(),
            age=self._age(),
            why=why,
            endpoints=tuple(reach.status() for reach in self._endpoints.reaches),
            watch=self._endpoints.watch_name,
        )

    def _tell(self) -> None:
        verdicts = tuple((reach.reachability, reach.fault) for reach in self._endpoints.reaches)
        now = (self._state, self._forced, self._is_metered(), verdicts)
        before, self._last_told = self._last_told, now
        if before is None or now == before or not self._listeners:
            return
        status = self._status()
        for listener in list(self._listeners):
            try:
                listener(status)
            except Exception as error:  # noqa: BLE001  # one listener's mistake is no reason to keep news from others
                context = {"message": "a listener to the link's changes failed", "exception": error}
                self._loop.call_exception_handler(context)


def _read(state: LinkState | str) -> LinkState:
    try:
        return LinkState(state)
    except ValueError:
        known = ", ".join(repr(each.value) for each in LinkState)
        raise InvalidRequest(f"{state!r} is no state of a link; it is one of {known}, or None") from None
