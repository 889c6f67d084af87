"""An engine in a supervised process: started, watched, restarted after a crash, called one at a time, stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ...core.deadline import Deadline
from ...core.duration import format_duration
from ...core.errors import ModelUnavailable
from ...core.failure import AttemptError, FailureKind
from ...core.request import Priority
from ..backend import BackendHealth, HealthState
from .child import Child
from .death import WorkerDied
from .engine import Parcel
from .frames import JsonObject
from .replies import Replies
from .scratch import remove_leftovers
from .turns import Turns

_CRASHES_TO_GIVE_UP = 5
_WITHIN = 60.0
_BACKOFF = (0.0, 0.25, 0.5, 1.0)  # Seconds before the restart after the first, second, … crash.
_UNTIL_MENDED = 30.0  # Seconds after which it may try again a model that could not be used.
_FIRST_REST, _LONGEST_REST = 60.0, 600.0  # Seconds after which it may after crashes; twice as long each time.


class WorkerProcess:
    """One engine, named ``module:factory`` (a callable without arguments that makes an `engine.Engine`).

    ``settings`` go to `Engine.load` as JSON. A function that makes them may block and read files: it is called before
    each start of a process, in the loop's default executor, and its `ModelUnavailable` becomes MODEL_UNAVAILABLE. After
    a crash of native code ``settings_after_crash`` are laid over them, for good. ``concurrency`` calls run at once, on
    as many engine threads; others wait, by priority and then by arrival, also while the engine loads or comes back. A
    worker that answers no ping for ``hang_after`` seconds is killed, and so is one that holds more than
    ``memory_limit`` bytes, or has not loaded its model after ``loading_seconds`` of processor time. After five crashes
    within a minute, or where the model cannot be used, it refuses all calls until `start` is called again, or for a
    while: the first call after that tries again. Where nothing is asked of it for ``idle_unload`` seconds the process
    is ended, and the next call waits for a new one.

    Belongs to the event loop that `start` runs on. Raises `AttemptError` only: a worker's death is CRASHED (by a
    signal, an exit, or its memory limit), STALLED (it hung) or PROTOCOL (it sent nonsense), an exception of the engine
    is INTERNAL, a model that does not load is MODEL_UNAVAILABLE.
    """

    def __init__(
        self,
        name: str,
        factory: str,
        settings: JsonObject | Callable[[], JsonObject],
        *,
        settings_after_crash: JsonObject | None = None,
        concurrency: int = 1,
        hang_after: float = 5.0,
        memory_limit: int | None = None,
        idle_unload: float | None = None,
        loading_seconds: float = 600.0,
    ) -> None:
        self._name = name
        self._factory = factory
        self._settings = settings
        self._settings_after_crash = settings_after_crash or {}
        self._concurrency = concurrency
        self._hang_after = hang_after
        self._memory_limit = memory_limit
        self._idle_unload = idle_unload
        self._loading_seconds = loading_seconds
        self._wanted = asyncio.Event()
        self._last_used = 0.0
        self._turns = Turns(concurrency)
        self._health = BackendHealth(HealthState.LOADING, "the engine has not been started")
        self._settled = asyncio.Event()
        self._failure: AttemptError | None = None
        self._child: Child | None = None
        self._life: asyncio.Task[None] | None = None
        self._info: JsonObject = {}

    @property
    def health(self) -> BackendHealth:
        """READY, LOADING (also while it comes back from a crash), or DOWN with the reason."""
        return self._health

    @property
    def info(self) -> JsonObject:
        """What `Engine.load` returned last; empty before."""
        return self._info

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is no ready process."""
        return None if self._child is None else self._child.pid

    @property
    def running(self) -> int:
        """How many calls the engine works on; a cancelled one counts until the engine has really stopped."""
        return self._turns.taken

    @property
    def waiting(self) -> int:
        """How many calls wait for their turn."""
        return self._turns.waiting

    async def start(self) -> None:
        """Start the process and load the model; returns when it is ready, at once when it is already.

        Raises `AttemptError` when it cannot. Cancelling the wait does not stop the loading; `stop` does.
        """
        if self._life is None or self._failure is not None:
            if self._life is not None:
                self._life.cancel()  # It rests, without a process.
            self._become(HealthState.LOADING, "the engine loads its model")
            self._turns.close()
            self._life = asyncio.get_running_loop().create_task(self._live())
        self._wanted.set()
        await self._settled.wait()
        if self._failure is not None:
            raise AttemptError(self._failure.kind, self._failure.sentence)

    async def stop(self) -> None:
        """End the process, within a second, and all calls with PREEMPTED. Idempotent."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.wait([life])
        self._give_up(AttemptError(FailureKind.PREEMPTED, f"backend {self._name!r} was stopped"))

    async def stream(
        self, call: Parcel, priority: Priority = Priority.NORMAL, deadline: Deadline | None = None
    ) -> Replies:
        """Send a call when its turn comes. Use the result as ``with replies: async for event in replies: …``.

        Raises TIMED_OUT, and sends nothing, where the deadline has passed by then.
        """
        self._refuse_late(deadline)
        self._wanted.set()
        while True:
            await self._turns.take(priority)
            if self._child is not None:
                break
            # It died between the turn and now.
            self._turns.give_back()
        try:
            self._refuse_late(deadline)
            return self._child.call(call, on_end=self._end_turn)
        except AttemptError:
            self._turns.give_back()
            raise

    async def unary(
        self, call: Parcel, priority: Priority = Priority.NORMAL, deadline: Deadline | None = None
    ) -> Parcel:
        """Send a call that has one event, and return that."""
        return await _only(await self.stream(call, priority, deadline))

    async def ask(self, question: Parcel, deadline: Deadline | None = None) -> Parcel:
        """Have `Engine.ask` answer, beside whatever runs. Waits only for the engine to be ready.

        Raises TIMED_OUT, and sends nothing, where the deadline has passed.
        """
        self._refuse_late(deadline)
        self._wanted.set()
        while self._child is None:
            await self._settled.wait()
            if self._failure is not None:
                raise AttemptError(self._failure.kind, self._failure.sentence)
        return await _only(self._child.ask(question, on_end=self._note_use))

    async def _live(self) -> None:
        """Keep a process alive until this task is cancelled. Where that is given up, rest, and try again for a call."""
        clock = asyncio.get_running_loop().time
        after_crashes = _FIRST_REST
        while True:
            begun = clock()
            failure = await self._live_until_given_up()
            if clock() - begun > _LONGEST_REST:
                after_crashes = _FIRST_REST
            rest = _UNTIL_MENDED if failure.kind is FailureKind.MODEL_UNAVAILABLE else after_crashes
            after_crashes = min(2 * after_crashes, _LONGEST_REST)
            when = f"the first call after {format_duration(rest)} tries again, or a reload of the configuration at once"
            self._give_up(AttemptError(failure.kind, f"{failure.sentence}; {when}"))
            await asyncio.sleep(rest)
            self._become(HealthState.LOADING, f"{failure.sentence}; a call tries again")
            self._turns.close()
            self._wanted.clear()
            await self._wanted.wait()

    async def _live_until_given_up(self) -> AttemptError:
        try:
            return await self._keep_alive()
        except ModelUnavailable as error:
            return AttemptError(FailureKind.MODEL_UNAVAILABLE, str(error))
        except AttemptError as error:
            return error
        except Exception as error:  # noqa: BLE001  # whoever waits for the start is told of any
            sentence = f"the engine of backend {self._name!r} cannot be kept running ({type(error).__name__})"
            return AttemptError(FailureKind.INTERNAL, sentence)

    async def _keep_alive(self) -> AttemptError:
        """Start one process after another; why there is to be no more. Raises `AttemptError` where none can load."""
        await asyncio.to_thread(remove_leftovers)
        overlay: JsonObject = {}
        clock = asyncio.get_running_loop().time
        crashes: deque[float] = deque(maxlen=_CRASHES_TO_GIVE_UP)
        while True:
            # Read anew for each process: reading proves the model files, which may have changed meanwhile.
            reason = await self._live_once({**await self._read_settings(), **overlay})
            if reason is None:
                self._become(
                    HealthState.LOADING, "the engine had nothing to do and was unloaded; a call loads it again"
                )
                await self._wanted.wait()
                continue
            crashes.append(clock())
            if len(crashes) == _CRASHES_TO_GIVE_UP and crashes[-1] - crashes[0] < _WITHIN:
                sentence = f"{reason.sentence}, {_CRASHES_TO_GIVE_UP} times within a minute"
                return AttemptError(reason.kind, sentence)
            if reason.native_crash:
                overlay = self._settings_after_crash
            recent = sum(crashes[-1] - crash < _WITHIN for crash in crashes)
            await asyncio.sleep(_BACKOFF[min(recent, len(_BACKOFF)) - 1])

    async def _read_settings(self) -> JsonObject:
        if callable(self._settings):
            return await asyncio.to_thread(self._settings)
        return self._settings

    async def _live_once(self, settings: JsonObject) -> WorkerDied | None:
        """One process's life: why it died, or None when it was ended for having nothing to do.

        Raises `AttemptError` when it lives but cannot load.
        """
        child = await Child.spawn(
            self._factory, self._name, hang_after=self._hang_after, memory_limit=self._memory_limit, on_death=self._lose
        )
        try:
            self._info = await child.load(
                settings,
                threads=self._concurrency,
                progress=self._loading,
                processor_seconds=self._loading_seconds,
            )
            self._child = child
            self._become(HealthState.READY, "")
            self._turns.open()
            self._settled.set()
            return await self._watch(child)
        except WorkerDied as reason:
            if not reason.native_crash:
                return reason
            sentence = f"{reason.sentence} while it loaded its model; the file may be damaged"
            return WorkerDied(reason.kind, sentence, native_crash=True)
        finally:
            await child.stop()

    async def _watch(self, child: Child) -> WorkerDied | None:
        """Wait for the process's death, or until nothing has been asked of it for long."""
        if self._idle_unload is None:
            return await asyncio.shield(child.died)
        clock = asyncio.get_running_loop().time
        self._last_used = clock()
        rest = self._idle_unload
        while rest > 0:
            await asyncio.wait([child.died], timeout=rest)
            if child.died.done():
                return child.died.result()
            busy = child.busy or self._turns.waiting
            rest = self._idle_unload if busy else self._last_used + self._idle_unload - clock()
        # From here on calls and questions wait for the next process.
        self._child = None
        self._settled.clear()
        self._turns.close()
        self._wanted.clear()
        return None

    def _end_turn(self) -> None:
        self._note_use()
        self._turns.give_back()

    def _note_use(self) -> None:
        self._last_used = asyncio.get_running_loop().time()

    def _refuse_late(self, deadline: Deadline | None) -> None:
        if deadline is not None and deadline.passed(asyncio.get_running_loop().time()):
            sentence = f"the deadline had passed before backend {self._name!r} began"
            raise AttemptError(FailureKind.TIMED_OUT, sentence)

    def _lose(self, reason: WorkerDied) -> None:
        self._child = None
        self._turns.close()
        self._become(HealthState.LOADING, f"{reason.sentence}; it comes back")

    def _loading(self, share: float) -> None:
        if self._health.state is HealthState.LOADING:
            self._health = BackendHealth(HealthState.LOADING, f"the engine loads its model, {share:.0%}", share)

    def _become(self, state: HealthState, sentence: str) -> None:
        self._health = BackendHealth(state, sentence)
        self._failure = None
        self._settled.clear()

    def _give_up(self, failure: AttemptError) -> None:
        self._health = BackendHealth(HealthState.DOWN, failure.sentence)
        self._failure = failure
        self._turns.refuse(failure)
        self._settled.set()


async def _only(replies: Replies) -> Parcel:
    result: Parcel | None = None
    with replies:
        async for event in replies:
            result = event
    if result is None:
        raise AttemptError(FailureKind.INTERNAL, "the engine ended a call without a result")
    return result
