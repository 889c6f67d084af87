"""The blocking client: `AsyncRouter` over one background event loop. Thread-safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, Unpack

from ...backends import Backend
from ...core.answer import Answer
from ...policies.plan import Plan
from ..options import GenerateOptions, Prompt, RequestOptions, StreamOptions
from ..stats import RouterStats
from .async_router import AsyncRouter
from .background import Background
from .blocking_connectivity import BlockingConnectivity
from .blocking_stream import BlockingStream

if TYPE_CHECKING:
    from ..config import Configuration
    from ..outbox import Receipt, Result, Tally
    from .arrays import Tensors, Vectors
    from .classified import Classified
    from .token_count import TokenCount


class Router:
    """Routes each request to a permitted backend, and carries it through. Blocks; any thread may call it.

    Close it with ``with``, `close`, or let the interpreter's exit do it.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        backends: Mapping[str, Backend] | None = None,
        replay: bool = False,
        watch: bool = False,
    ) -> None:
        self._async = AsyncRouter(configuration, backends=backends, replay=replay, watch=watch)
        self._background = Background(self._async.close)
        try:
            self._background.run(self._enter())
        except BaseException:
            self.close()
            raise

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ready(self) -> None:
        """Wait until every backend has loaded or failed to. No call needs this: requests go to what is ready."""
        self._background.run(self._async.ready())

    def close(self) -> None:
        """End all work and free everything. Idempotent; calls under way and later ones raise `RouterClosed`."""
        self._background.end()

    def reload(self, path: str | PathLike[str] | None = None) -> None:
        """Take a new version of the configuration between two requests. See `AsyncRouter.reload`."""
        self._background.run(self._async.reload(path))

    @property
    def connectivity(self) -> BlockingConnectivity:
        """The link: its state, every remote endpoint's, and ``force('offline')``."""
        return BlockingConnectivity(self._background, lambda: self._async.connectivity)

    def stats(self) -> RouterStats:
        """What is known now of every backend: predictions, queue, breaker, budgets, attempts, cost. No content."""
        return self._background.call(self._async.stats)

    @property
    def policy_version(self) -> str:
        """The version of the policy in force: a hash of it and of the backends' terms."""
        return self._async.policy_version

    def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Answer:
        """Answer a text or a conversation, whole.

        ``prompt`` is a text, or a list of `Message`. Options, all optional (see `GenerateOptions` for each):
        ``data_class`` (a name or several; the policy's default), ``latency_budget`` (seconds or ``'800ms'``; the
        policy's), ``max_output_tokens`` (256), ``temperature`` (0.8; 0 is greedy), ``top_p`` (0.95), ``seed``,
        ``stop``, ``response_format``, ``logprobs``, ``priority``, ``tags``, ``residency``, ``backend``,
        ``idempotent`` (True), ``idempotency_key``, ``conversation``.

        Blocks until the answer is whole, at most for the budget. Raises `InvalidRequest`, or a `RequestError` with its
        decision: `NoBackendPermitted`, `Offline`, `DeadlineExceeded`, `Overloaded`, `BackendError`.
        """
        return self._background.run(self._async.generate(prompt, **options))

    def stream(self, prompt: Prompt, **options: Unpack[StreamOptions]) -> BlockingStream:
        """Answer a text or a conversation, chunk by chunk; the last chunk carries the whole `Answer`.

        The options are `generate`'s, ``first_token_budget`` (seconds or ``'800ms'``) for the first chunk, and
        ``stream_failover`` (see `StreamOptions`). Raises what `generate` raises, and `PartialAnswer`, whose ``partial``
        has the text so far.
        The iterator also is a context manager; leaving it, or its ``close()``, stops the work at once. Leaving
        a ``for`` loop early does so when the iterator is collected, or the budget ends.
        """
        return BlockingStream(self._background, lambda: self._async.stream(prompt, **options))

    def embed(self, texts: Sequence[str], **options: Unpack[RequestOptions]) -> Vectors:
        """Embed n texts: a float32 array ``[n, d]`` in their order, which knows its ``backend`` and ``decision``.

        Takes the options of `RequestOptions`: ``data_class``, ``latency_budget`` and so on. Raises what `generate`
        raises.
        """
        return self._background.run(self._async.embed(texts, **options))

    def classify(self, texts: Sequence[str], **options: Unpack[RequestOptions]) -> Classified:
        """Judge texts by a model's labels: for each text, in their order, every label with its score, the best first.

        ``router.classify(["a text"])[0][0].label`` is the likeliest label. The result knows its ``backend`` and
        ``decision``. Takes the options of `RequestOptions`. Raises what `generate` raises.
        """
        return self._background.run(self._async.classify(texts, **options))

    def infer(self, model: str, inputs: Mapping[str, Any], **options: Unpack[RequestOptions]) -> Tensors:
        """Run a model on named tensors; returns named arrays, as a dict that knows its ``backend`` and ``decision``.

        ``inputs`` are numpy arrays of the model's own shapes and types, or what numpy makes arrays of. Takes the
        options of `RequestOptions`. Raises what `generate` raises; a wrong name, type or shape is an `InvalidRequest`.
        """
        return self._background.run(self._async.infer(model, inputs, **options))

    def count_tokens(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> TokenCount:
        """How many tokens a text or a conversation has: an int that knows its ``backend`` and ``decision``.

        See `AsyncRouter.count_tokens`.
        """
        return self._background.run(self._async.count_tokens(prompt, **options))

    def plan(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Plan:
        """What would happen to a `generate` with these options, without sending anything."""
        return self._background.run(self._async.plan(prompt, **options))

    def submit(
        self,
        prompt: Prompt,
        *,
        order_key: str | None = None,
        ttl: float | str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Receipt:
        """Queue a text or a conversation, to be answered when it can be. See `AsyncRouter.submit`."""
        return self._background.run(self._async.submit(prompt, order_key=order_key, ttl=ttl, **options))

    def result(self, receipt: str, timeout: float | str | None = 0.0) -> Answer | None:
        """The answer of a queued request; ``None`` where there is none within ``timeout``. See `AsyncRouter.result`."""
        return self._background.run(self._async.result(receipt, timeout))

    def results(self) -> Iterator[Result]:
        """What queued requests came to, each until it was dealt with. See `AsyncRouter.results`."""

        async def next_result() -> Result | None:
            return await anext(results, None)

        results = self._background.call(self._async.results)
        while (result := self._background.run(next_result())) is not None:
            yield result

    def on_result(self, callback: Callable[[Result], None]) -> None:
        """Call back for each result, in a thread of its own, while this router is open. See `AsyncRouter.on_result`."""

        async def in_thread(result: Result) -> None:
            await self._background.loop.run_in_executor(None, callback, result)

        self._background.call(lambda: self._async.on_result(in_thread))

    def cancel(self, receipt: str) -> bool:
        """Give a queued request up and erase its content. See `AsyncRouter.cancel`."""
        return self._background.run(self._async.cancel(receipt))

    def flush(self, progress: Callable[[Tally], None] = lambda tally: None) -> Tally:
        """Try each queued request once, now; ``progress`` runs in the router's thread. See `AsyncRouter.flush`."""
        return self._background.run(self._async.flush(progress))

    async def _enter(self) -> None:
        await self._async.__aenter__()
