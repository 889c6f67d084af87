"""The only door through which content leaves to a backend.

Whoever wants to send shows a permit. It is judged here once more, at the last moment, against the newest
walls; only then is the sealed content opened.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..backends import Backend, CallContext
from ..core.answer import Classification, Embeddings, GenerateEvent, Inference
from ..core.content import (
    ClassifyInput,
    Content,
    CountTokensInput,
    EmbedInput,
    GenerateInput,
    InferInput,
    Message,
    Role,
)
from ..core.failure import AttemptError, FailureKind
from ..core.permit import Bounds, Permit
from ..core.request import Request

if TYPE_CHECKING:
    from ..policies import Policy


class Dispatch:
    """Opens requests for permitted backends. ``newest_policy`` gives the policy in force at each call."""

    def __init__(self, newest_policy: Callable[[], Policy]) -> None:
        self._newest_policy = newest_policy

    def generate(
        self,
        permit: Permit,
        backend: Backend,
        request: Request,
        context: CallContext,
        *,
        partial: str,
        tokens_left: int,
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Start a generation. ``partial`` is what the assistant has already said: the backend continues it."""
        content, bounds = self._open(permit, backend, request)
        assert isinstance(content, GenerateInput)
        if partial:
            content = _continued(content, partial, tokens_left)
        return backend.generate(content, replace(context, bounds=bounds))

    def resume(
        self, permit: Permit, backend: Backend, request: Request, context: CallContext, *, after: int
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Go on with the stream that ``context`` names, after so many of its events. No content is opened."""
        bounds = self._judge(permit, backend, request)
        return backend.resume(after, replace(context, bounds=bounds))

    async def embed(self, permit: Permit, backend: Backend, request: Request, context: CallContext) -> Embeddings:
        """Run an embedding."""
        content, bounds = self._open(permit, backend, request)
        assert isinstance(content, EmbedInput)
        return await backend.embed(content, replace(context, bounds=bounds))

    async def classify(
        self, permit: Permit, backend: Backend, request: Request, context: CallContext
    ) -> Classification:
        """Run a classification."""
        content, bounds = self._open(permit, backend, request)
        assert isinstance(content, ClassifyInput)
        return await backend.classify(content, replace(context, bounds=bounds))

    async def infer(self, permit: Permit, backend: Backend, request: Request, context: CallContext) -> Inference:
        """Run an inference."""
        content, bounds = self._open(permit, backend, request)
        assert isinstance(content, InferInput)
        return await backend.infer(content, replace(context, bounds=bounds))

    async def count_tokens(self, permit: Permit, backend: Backend, request: Request, context: CallContext) -> int:
        """Count a prompt's tokens."""
        content, bounds = self._open(permit, backend, request)
        assert isinstance(content, CountTokensInput)
        return await backend.count_tokens(content, replace(context, bounds=bounds))

    def _open(self, permit: Permit, backend: Backend, request: Request) -> tuple[Content, Bounds]:
        bounds = self._judge(permit, backend, request)
        return request.content.open(permit), bounds

    def _judge(self, permit: Permit, backend: Backend, request: Request) -> Bounds:
        """What the newest walls leave of the world for the request. Raises `AttemptError` where this is beyond them."""
        if permit.backend != backend.name:
            raise AttemptError(FailureKind.NOT_PERMITTED, f"the permit is for {permit.backend!r}, not {backend.name!r}")
        policy = self._newest_policy()
        refusal = policy.permits(permit, request.labels)
        if refusal is not None:
            raise AttemptError(FailureKind.NOT_PERMITTED, f"no longer permitted: {refusal.sentence}")
        return policy.bounds(request.labels)


def _continued(content: GenerateInput, partial: str, tokens_left: int) -> GenerateInput:
    messages = content.messages
    if content.continues:
        last = messages[-1]
        messages = (*messages[:-1], replace(last, text=last.text + partial))
    else:
        messages = (*messages, Message(Role.ASSISTANT, partial))
    return replace(content, messages=messages, max_output_tokens=tokens_left)
