"""What all tests of the contract stand on: a loop, a started backend, and an eye on what must not show."""

from __future__ import annotations

import asyncio
import functools
import logging
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, ClassVar, TypeVar

from ...core.answer import Delta, Finish, GenerateEvent
from ...core.content import (
    ClassifyInput,
    Content,
    CountTokensInput,
    EmbedInput,
    GenerateInput,
    InferInput,
    Message,
)
from ...core.deadline import Deadline
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ..backend import Backend, CallContext

SECONDS_TO_STOP = 2.0
"""Longer than any engine should take, and shorter than what is cancelled here would run."""

MARKER = "plover-7141"
"""A word of every prompt here, by which content is known where it must not be."""

S = TypeVar("S", bound="Suite")
T = TypeVar("T")


class Suite:
    """Makes one backend for all tests of a class, on one event loop. What is set here may be overridden."""

    prompt: ClassVar[tuple[Message, ...]] = (Message.user(f"My word is {MARKER}. Count slowly from 1 to 100."),)
    """A conversation whose answer has at least eight tokens."""
    texts: ClassVar[tuple[str, ...]] = (f"{MARKER} is a word.", "The cat sat on the mat.", "")
    """What `embed` and `classify` are asked for; ``()`` where the service takes something else."""
    tensors: ClassVar[InferInput | None] = None
    """What `infer` is asked for; needed where the backend can `infer`."""
    patience: ClassVar[float] = 60.0
    """Seconds that one test may take before it counts as hanging."""
    concurrent: ClassVar[int] = 8
    """Where a backend takes more calls at once than this, so many are tried."""
    streams: ClassVar[bool] = True
    """It gives its text bit by bit, and not all at once in the end."""
    honours_length: ClassVar[bool] = True
    """It ends at ``max_output_tokens``."""
    honours_seed: ClassVar[bool] = True
    """The same seed gives the same text, and temperature 0 is greedy."""
    honours_stop: ClassVar[bool] = True
    """It ends before a stop sequence. A router cuts there too."""

    backend: ClassVar[Backend]
    _runner: ClassVar[asyncio.Runner]
    _stack: ClassVar[AsyncExitStack]

    @classmethod
    def make(cls) -> Backend:
        """A new backend, not started. Each is started and stopped once."""
        raise NotImplementedError(f"{cls.__name__} does not say how its backend is made: define make() or opened()")

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        """A new backend, not started, and around it whatever it needs, such as a server."""
        yield cls.make()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        """Return once the engine works on nothing. Override it where that can be seen, from the engine's side."""

    @classmethod
    def setup_class(cls) -> None:
        """Start the backend that the tests share. For pytest."""
        cls._runner = asyncio.Runner()
        cls._stack = AsyncExitStack()
        try:
            cls.backend = cls._runner.run(_bounded(cls._stack.enter_async_context(cls.started()), cls.patience))
        except BaseException:
            cls._runner.close()
            raise

    @classmethod
    def teardown_class(cls) -> None:
        """Stop it. For pytest."""
        with cls._runner as runner:
            runner.run(_bounded(cls._stack.aclose(), cls.patience))

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Backend]:
        """A backend of a test's own, started, and stopped in the end."""
        async with cls.opened() as backend:
            try:
                await backend.start()
                yield backend
            finally:
                await backend.stop()

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test on the class's loop, within its patience, while no log record and no repr may show content."""
        with _watched_logs():
            self._runner.run(_bounded(test, self.patience))
        assert MARKER not in repr(self.backend), "the backend's repr shows content"

    async def becomes_idle(self) -> None:
        """Fail where the engine still works long after it was told to stop, as far as `idle` can see."""
        try:
            async with asyncio.timeout(SECONDS_TO_STOP):
                await self.idle(self.backend)
        except TimeoutError:
            raise AssertionError(f"the engine still works {SECONDS_TO_STOP:g} s after the cancellation") from None

    def require_honoured(self, honoured: bool, what: str) -> None:
        """Skip the test where the backend does not do this."""
        if not honoured:
            raise unittest.SkipTest(f"the backend does not honour {what}")

    def context(self, seconds: float | None = None) -> CallContext:
        """What goes with a call that has so long to live, by default longer than the test."""
        budget = self.patience * 2 if seconds is None else seconds
        return CallContext("contract", Deadline(asyncio.get_running_loop().time() + budget), ("contract",))

    def call(self, *more: Message, **options: Any) -> GenerateInput:
        """The prompt and what follows it: greedy, with a seed, and short unless told otherwise."""
        return GenerateInput(
            (*self.prompt, *more), **{"temperature": 0.0, "seed": 1, "max_output_tokens": 12} | options
        )

    async def events(self, call: GenerateInput, backend: Backend | None = None) -> list[GenerateEvent]:
        """All events of one generation."""
        stream = (backend or self.backend).generate(call, self.context())
        return [event async for event in stream]

    async def answer(self, call: GenerateInput) -> tuple[str, Finish]:
        """The whole text of one generation, and its last event."""
        events = await self.events(call)
        assert events, "a stream ended without a Finish"
        assert isinstance(events[-1], Finish), "a stream ended without a Finish"
        return "".join(event.text for event in events if isinstance(event, Delta)), events[-1]

    async def ask(self, task: Task, *, backend: Backend | None = None, context: CallContext | None = None) -> None:
        """One short call of this kind, to its end."""
        backend, context = backend or self.backend, context or self.context()
        await perform(backend, self.content(task), context)

    def content(self, task: Task) -> Content:
        """The content of a short call of this kind."""
        match task:
            case Task.GENERATE:
                return self.call(max_output_tokens=4)
            case Task.EMBED:
                return EmbedInput(self.texts or (MARKER,))
            case Task.CLASSIFY:
                return ClassifyInput(self.texts or (MARKER,))
            case Task.INFER:
                return self.tensors or InferInput("", {})
            case Task.COUNT_TOKENS:
                return CountTokensInput(self.prompt)


async def perform(backend: Backend, content: Content, context: CallContext) -> None:
    """Make a call and read its answer to the end."""
    match content:
        case GenerateInput():
            async for _ in backend.generate(content, context):
                pass
        case EmbedInput():
            await backend.embed(content, context)
        case ClassifyInput():
            await backend.classify(content, context)
        case InferInput():
            await backend.infer(content, context)
        case CountTokensInput():
            await backend.count_tokens(content, context)


async def failure(call: Awaitable[object], what: str) -> AttemptError:
    """What a call failed with, which is an `AttemptError` that shows no content. ``what`` says which call it is."""
    try:
        await call
    except AttemptError as error:
        _assert_discreet(error)
        return error
    except Exception as error:
        raise AssertionError(f"a backend raises AttemptError only, and this was {type(error).__name__}") from error
    raise AssertionError(f"{what} succeeded, and should have failed")


async def outcome(call: Awaitable[object]) -> FailureKind | None:
    """How a call ended that may succeed or fail: the kind of its failure, or None."""
    try:
        await call
    except AttemptError as error:
        _assert_discreet(error)
        return error.kind
    except Exception as error:
        raise AssertionError(f"a backend raises AttemptError only, and this was {type(error).__name__}") from error
    return None


async def cancel(work: asyncio.Task[None]) -> None:
    """Cancel a task, which then ends as cancelled, or had ended before."""
    was_done = work.done()
    work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        return
    except AttemptError:
        assert was_done, "a cancellation was turned into a failure"
        raise
    assert was_done, "a cancellation was swallowed"


def on_loop(test: Callable[[S], Coroutine[Any, Any, None]]) -> Callable[[S], None]:
    """Make a test of an asynchronous one, so that pytest needs no plugin for it."""

    @functools.wraps(test)
    def run(self: S) -> None:
        self.run(test(self))

    return run


def _assert_discreet(error: AttemptError) -> None:
    seen: BaseException | None = error
    while seen is not None:
        for shown in (str(seen), repr(seen)):
            assert MARKER not in shown, "an error's text shows content"
        # As a traceback would print it.
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    assert error.sentence, "an error says nothing to people"


async def _bounded(work: Awaitable[T], seconds: float) -> T:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise AssertionError(f"nothing came of it within {seconds:g} s") from None
        raise


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.shown: list[str] = []
        self._format = logging.Formatter("%(name)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        self.shown.append(self._format.format(record))


@contextmanager
def _watched_logs() -> Iterator[None]:
    """Fail where a log record, of whatever level, shows content."""
    root, records = logging.getLogger(), _Records()
    level = root.level
    root.addHandler(records)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(records)
    assert not [line for line in records.shown if MARKER in line], "a log record shows content"
