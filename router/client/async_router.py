"""The asynchronous client: every request's way, in one place."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from ...backends import Backend
from ...core.answer import Answer, Chunk
from ...core.content import ClassifyInput, EmbedInput, InferInput
from ...core.errors import InvalidRequest, RouterClosed
from ...core.request import Labels, Task
from ...policies.facts import DeviceFacts
from ...policies.plan import Plan, StreamFailover
from ..decision_log import DecisionLog
from ..device import Device, sample_device
from ..dispatch import Dispatch
from ..execution.arrays import run_classify, run_count_tokens, run_embed, run_infer
from ..execution.conduct import Conduct, Run
from ..execution.generation import run_generate
from ..execution.outcome import out_of_time
from ..execution.streaming import Failover, Stream
from ..link import Connectivity, Network, system_network
from ..options import GenerateOptions, Prompt, RequestOptions, StreamOptions
from ..spending import Spending
from ..state_file import StateFile
from ..stats import RouterStats
from .ask import count_bytes, labels_of, prompt_tokens, stream_failover, texts_of
from .assemble import build_fleet
from .decide import Decider
from .queue import Queue
from .token_count import TokenCount
from .watch import Watch

if TYPE_CHECKING:
    from ..config import Configuration
    from ..outbox import Receipt, Result, Tally
    from .arrays import Tensors, Vectors
    from .classified import Classified

T = TypeVar("T")
U = TypeVar("U")


class AsyncRouter:
    """Routes each request to a permitted backend, and carries it through. Use it within one event loop.

    ``backends`` replaces configured backends by name, for tests. ``random_source``, ``wall_clock``, ``sample`` and
    ``network`` are the seams for randomness, local time, the device's state and its network. ``replay`` sends what
    `submit` queued, here or in another process, while the router is open. ``watch`` looks at the configuration's file
    about once a second, and takes a new version as `reload` does; one that does not load is reported to the log and
    changes nothing. Start it with ``async with`` or the first call; `close` ends it.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        backends: Mapping[str, Backend] | None = None,
        random_source: random.Random | None = None,
        wall_clock: Callable[[], datetime] = datetime.now,
        sample: Callable[[], DeviceFacts] = sample_device,
        network: Network | None = None,
        replay: bool = False,
        watch: bool = False,
    ) -> None:
        self.configuration = configuration
        self._replacements = dict(backends or {})
        self._random = random_source or random.Random()
        self._sample = sample
        self._wall_clock = wall_clock
        self._network = network or system_network()
        self._decider = Decider(configuration.policy, self._random, wall_clock)
        self._reloading = asyncio.Lock()
        decisions = configuration.decision_log
        self._log = None if decisions is None else DecisionLog(decisions, wall_clock)
        state_file = configuration.state_file
        self._state = None if state_file is None else StateFile(Path(state_file), wall_clock)
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._conduct: Conduct | None = None
        self._queue = Queue(self, configuration, self._random, wall_clock, replay=replay)
        self._watch = Watch(lambda: self.configuration.file, self.reload, self._random) if watch else None

    @classmethod
    def from_yaml(
        cls,
        path: str | PathLike[str],
        *,
        backends: Mapping[str, Backend] | None = None,
        replay: bool = False,
        watch: bool = False,
    ) -> Self:
        """A router by a configuration file, whose warnings go to the log.

        Raises `ConfigurationError` with every mistake in it.
        """
        from .reload import first_version

        return cls(first_version(path), backends=backends, replay=replay, watch=watch)

    async def __aenter__(self) -> Self:
        self._started()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def ready(self) -> None:
        """Wait until every backend has loaded or failed to. No call needs this: requests go to what is ready."""
        await self._started().fleet.started()

    async def close(self) -> None:
        """End all work and free everything. Idempotent; calls under way and later ones raise `RouterClosed`."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            await self._watch.stop()
        await self._queue.close()
        if self._state is not None:
            await self._state.close()
        if self._conduct is not None:
            await self._conduct.connectivity.stop()
            await self._conduct.device.stop()
            await self._conduct.fleet.stop()
        if self._log is not None:
            await self._log.close()

    async def reload(self, path: str | PathLike[str] | None = None) -> None:
        """Take a new version of the configuration, by default of its own file, in one step between two requests.

        Raises `ConfigurationError` where it does not load or wants other backends; then nothing has changed. Requests
        under way keep their plans; what they still start is judged by the newest walls, and what runs where these
        forbid it is stopped. What is down on this device, such as an engine whose model was missing, is started again.
        """
        from .reload import new_version

        self._started()
        loop = asyncio.get_running_loop()
        async with self._reloading:  # an older version must not overtake a newer one
            self._take(await loop.run_in_executor(None, new_version, self.configuration, path))
            await asyncio.sleep(0)  # What starts again has begun to before the next request is planned.

    def _take(self, configuration: Configuration) -> None:
        from .reload import withdraw_forbidden

        self.configuration = configuration
        self._decider.policy = configuration.policy
        if self._conduct is not None:
            self._conduct.fleet.take_terms(configuration.policy.terms)
            self._conduct.fleet.start_again()
            withdraw_forbidden(self._conduct.under_way, configuration.policy)

    @property
    def connectivity(self) -> Connectivity:
        """The link: its state, every remote endpoint's, and ``force('offline')``. See `Connectivity`."""
        return self._started().connectivity

    def stats(self) -> RouterStats:
        """What is known now of every backend: predictions, queue, breaker, budgets, attempts, cost. No content."""
        conduct = self._started()
        return RouterStats(
            link=conduct.connectivity.state,
            policy_version=self.policy_version,
            backends={member.name: member.stats() for member in conduct.fleet},
        )

    @property
    def policy_version(self) -> str:
        """The version of the policy in force: a hash of it and of the backends' terms."""
        return self._decider.policy.version

    async def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Answer:
        """Answer a text or a conversation, whole.

        For the options see `GenerateOptions`. Raises `InvalidRequest`, or a `RequestError` with its decision:
        `NoBackendPermitted`, `Offline`, `DeadlineExceeded`, `Overloaded`, `BackendError`.
        """
        started_at = asyncio.get_running_loop().time()
        content, labels = self._decider.generation(prompt, options, streaming=False)
        run = self._decider.decide(self._started(), content, labels, options, started_at)
        with self._recording(run):
            return await run_generate(run, content.stop, content.max_output_tokens)

    def stream(self, prompt: Prompt, **options: Unpack[StreamOptions]) -> AsyncGenerator[Chunk, None]:
        """Answer a text or a conversation, chunk by chunk; the last chunk carries the whole `Answer`.

        The budgets count from this call. Leaving the loop early stops the work: at once with ``contextlib.aclosing``,
        else when the generator is collected, or the budget ends. For the options see `StreamOptions`. Raises what
        `generate` raises, and `PartialAnswer`.
        """
        started_at = asyncio.get_running_loop().time()
        content, labels = self._decider.generation(prompt, options, streaming=True)
        run = self._decider.decide(self._started(), content, labels, options, started_at)
        wished = stream_failover(options) or run.plan.stream_failover
        failover = Failover(continues=wished != StreamFailover.NONE, restarts=wished == "restart")
        chunks = Stream(run, content.stop, content.max_output_tokens, failover).chunks()
        return chunks if self._log is None else self._recorded(run, chunks)

    async def embed(self, texts: Sequence[str], **options: Unpack[RequestOptions]) -> Vectors:
        """Embed texts: a float32 array ``[n, d]`` in their order.

        Raises what `generate` raises.
        """
        started_at = asyncio.get_running_loop().time()
        content = EmbedInput(texts_of(texts, Task.EMBED))
        labels = labels_of(Task.EMBED, options, self._decider.policy, tokens=prompt_tokens(content.texts, "a text"))
        run = self._decider.decide(self._started(), content, labels, options, started_at)
        with self._recording(run):
            answer, cost = await run_embed(run, len(content.texts))
        from .arrays import Vectors  # numpy loads when it is used

        return Vectors.of(answer, cost, run.decision)

    async def classify(self, texts: Sequence[str], **options: Unpack[RequestOptions]) -> Classified:
        """Judge texts by a model's labels: for each text, in their order, every label with its score, the best first.

        Raises what `generate` raises.
        """
        started_at = asyncio.get_running_loop().time()
        content = ClassifyInput(texts_of(texts, Task.CLASSIFY))
        labels = labels_of(Task.CLASSIFY, options, self._decider.policy, tokens=prompt_tokens(content.texts, "a text"))
        run = self._decider.decide(self._started(), content, labels, options, started_at)
        with self._recording(run):
            answer, cost = await run_classify(run, len(content.texts))
        from .classified import Classified  # numpy loads when it is used

        return Classified(answer, cost, run.decision)

    async def infer(self, model: str, inputs: Mapping[str, Any], **options: Unpack[RequestOptions]) -> Tensors:
        """Run a model on named tensors: numpy arrays, or what numpy makes arrays of. Returns named arrays.

        Raises what `generate` raises.
        """
        from .arrays import Tensors, are_small_arrays, tensors_of

        loop = asyncio.get_running_loop()
        started_at = loop.time()
        if count_bytes(model, "the model's name") == 0:
            raise InvalidRequest("the model's name is empty; name the model to run")
        labels = labels_of(Task.INFER, options, self._decider.policy, tokens=0, model=model)
        self._decider.announce(labels, options)
        # Long lists take numpy seconds, in which nobody else's deadline may wait.
        made = tensors_of(inputs) if are_small_arrays(inputs) else await self._made_in_time(labels, tensors_of, inputs)
        content = InferInput(model, made or {})
        run = self._decider.decide(self._started(), content, labels, options, started_at)
        with self._recording(run):
            if made is None:
                raise out_of_time(run.decision)
            return Tensors(await run_infer(run), run.decision)

    async def count_tokens(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> TokenCount:
        """How many tokens a text or a conversation has at the backend that counts it, as `generate` there would report.

        Models differ: ``backend=`` says whose count it is to be. Raises what `generate` raises; `NoBackendPermitted`
        also where none that is permitted can count.
        """
        started_at = asyncio.get_running_loop().time()
        content, labels = self._decider.counting(prompt, options)
        run = self._decider.decide(self._started(), content, labels, options, started_at)
        with self._recording(run):
            return TokenCount.of(await run_count_tokens(run), run.decision)

    async def plan(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Plan:
        """What would happen to a `generate` with these options, without sending anything.

        Raises `InvalidRequest`; a plan that permits nothing is returned like any other.
        """
        _, labels = self._decider.generation(prompt, options, streaming=False)
        return self._decider.plan(self._started(), labels, options)

    async def submit(
        self,
        prompt: Prompt,
        *,
        order_key: str | None = None,
        ttl: float | str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Receipt:
        """Queue a text or a conversation, to be answered when it can be; the receipt stands for a commit on the disk.

        Requests of one ``order_key``, a name, are answered one after the other. ``ttl`` is the seconds, or a text like
        ``'24h'``, after which it is given up; ``policy.offline.queue_ttl`` where absent. An ``idempotency_key`` that is
        queued already gives that one's receipt. Budgets count from each send. Raises `InvalidRequest`, `OutboxFull`,
        `OutboxError`, and `NoBackendPermitted` where no backend could ever take it.
        """
        content, labels = self._decider.generation(prompt, options, streaming=False)
        run = self._decider.decide(self._started(), content, labels, options, asyncio.get_running_loop().time())
        may_queue = self._decider.policy.may_queue(run.request.labels)
        return await self._queue.submit(content.messages, run, options, order_key, ttl, may_queue=may_queue)

    async def result(self, receipt: str, timeout: float | str | None = 0.0) -> Answer | None:
        """The answer of a queued request; ``None`` where there is none within ``timeout`` (``None`` waits on).

        Raises `DeadLetter` where it ended without one, `OutboxError` for a receipt that is not known.
        """
        self._started()
        return await self._queue.outbox.result(receipt, timeout)

    def results(self) -> AsyncGenerator[Result, None]:
        """What queued requests came to, oldest first, each until it was dealt with; ends when there is no more.

        A result is dealt with when the loop asks for the next one: whoever dies while at it, gets it again.
        """
        self._started()
        return self._queue.outbox.results()

    def on_result(self, callback: Callable[[Result], Awaitable[None]]) -> None:
        """Call back for each result of `submit`, here or in an earlier process, while this router is open.

        One after the other, oldest first, in one process at a time. A result is dealt with when its callback has
        returned; where that raises, or the process dies in it, it comes again. Raises `OutboxError` for a second one.
        """
        self._started()
        self._queue.on_result(callback)

    async def cancel(self, receipt: str) -> bool:
        """Give a queued request up and erase its content. False where it has ended already, or is not known."""
        self._started()
        return await self._queue.outbox.cancel(receipt)

    async def flush(self, progress: Callable[[Tally], None] = lambda tally: None) -> Tally:
        """Try every queued request once, now. Raises `OutboxError`, also where another process replays."""
        self._started()
        return await self._queue.flush(progress)

    async def _made_in_time(self, labels: Labels, make: Callable[[T], U], given: T) -> U | None:
        """What a slow function makes, in the loop's executor; ``None`` where that takes longer than the budget.

        The application's own work may fill that executor. A rule may set another budget, but none is known here yet.
        """
        making = asyncio.get_running_loop().run_in_executor(None, make, given)
        budget = labels.latency_budget or self._decider.policy.default_latency_budget
        try:
            await asyncio.wait([making], timeout=budget)
            return making.result() if making.done() else None
        finally:
            making.cancel()

    def _recording(self, run: Run) -> AbstractContextManager[None]:
        """Records the decision at the end of the block, where there is a log."""
        if self._log is None:
            return nullcontext()
        return self._log.recording(run.decision, run.facts, self._decider.policy)

    async def _recorded(self, run: Run, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
        with self._recording(run):
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    def _started(self) -> Conduct:
        if self._process != os.getpid():
            raise RouterClosed(
                "this router belongs to the parent process; make routers after the fork, or spawn instead"
            )
        if self._closed:
            raise RouterClosed("this router is closed; make a new one")
        loop = asyncio.get_running_loop()
        if self._conduct is None:
            self._loop = loop
            fleet, connectivity = build_fleet(
                self.configuration, self._replacements, loop.time, self._random, self._network
            )
            dispatch = Dispatch(lambda: self._decider.policy)
            spending = Spending(self._wall_clock)
            self._conduct = Conduct(fleet, dispatch, connectivity, Device(self._sample), self._random, spending)
            if self._state is not None:
                self._state.start({"backends": fleet, "link": connectivity}, {"spending": spending})
            fleet.start()
            self._queue.start()
            if self._watch is not None:
                self._watch.start()
        elif self._loop is not loop:
            raise RouterClosed("this AsyncRouter runs in another event loop; make one for each loop, or use Router")
        return self._conduct
