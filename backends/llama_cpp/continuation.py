"""Continuing an answer exactly: as if it had never been cut."""

from __future__ import annotations

from dataclasses import dataclass

from ..chat.prompt import Prompt
from .native import Context
from .sampling import Sampler, logprobs

_AT_ONCE = 32
"""So many tokens are compared at a time: each takes the memory of a vocabulary's logits."""


@dataclass(frozen=True, slots=True, repr=False)
class Begun:
    """What is written beyond a cut that lies within a token: the rest of its bytes, and how likely the token was."""

    piece: bytes = b""
    logprobs: list[object] | None = None


def catch_up(
    context: Context, prompt: Prompt, sample: Sampler, data_classes: list[str], *, afresh: bool, top: int | None
) -> Begun | None:
    """Read a prompt whose answer has begun, so that greedy decoding goes on as it did; None when aborted.

    Returns how the model's own next token goes beyond the cut, with the log-probabilities of ``top`` others if asked.

    The tokens of a text are not the tokens that a model wrote it with, and a token says more than its text. So the
    text is read token by token as long as the model would have written the same, and where they differ, by what the
    model would have written, as long as that is the same text: greedy speculative decoding (Leviathan et al. 2023) with
    the text as the draft. A text that another wrote is soon told by this, and read as it is.
    """
    vocabulary = context.vocabulary
    rest = prompt.begun.encode()
    accepted: list[int] = []
    sample.rewind()
    while context.read([*prompt.head, *accepted], data_classes, afresh=afresh):
        afresh = False
        next_token = sample.likeliest()
        room = min(_AT_ONCE, context.batch_tokens, context.size - context.used)
        draft = vocabulary.tokenise(rest.decode("utf-8", "replace"), control=False)[:room]
        if draft and not context.predict(draft):
            return None
        for at, token in enumerate(draft):
            if token != next_token or not rest.startswith(piece := vocabulary.piece(token)):
                break
            accepted.append(token)
            sample.advance(token)
            rest = rest[len(piece) :]
            next_token = sample.likeliest(at)
        if not rest:
            return Begun()
        piece = vocabulary.piece(next_token)
        beyond = piece[len(rest) :] if piece.startswith(rest) else None
        if beyond is None and not (piece and rest.startswith(piece)):
            # The model would not have written this.
            sample.follow(prompt.begun)
            return Begun() if context.read(prompt.tokens, data_classes, afresh=False) else None
        entry = None
        if beyond is not None and top is not None:
            if not context.read([*prompt.head, *accepted], data_classes, afresh=False):
                return None
            entry = [beyond.decode("utf-8", "replace"), *logprobs(context, next_token, top)[1:]]
        accepted.append(next_token)
        sample.advance(next_token)
        if beyond is not None:
            return Begun(beyond, entry) if context.read([*prompt.head, *accepted], data_classes, afresh=False) else None
        rest = rest[len(piece) :]
    return None
