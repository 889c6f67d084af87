"""llama.cpp in the worker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...core.failure import AttemptError, FailureKind
from ..process.engine import Engine, Events, Parcel, Progress, RunningCall
from ..process.frames import JsonObject

if TYPE_CHECKING:
    from ..chat.prompt import Prompt, PromptWriter
    from .native import Context


class LlamaCppEngine(Engine):
    """One model. A call has the fields of `GenerateInput`, or ``texts`` to embed.

    A question has the fields of a `GenerateInput`, and the answer is its length.
    """

    _context: Context
    _prompts: PromptWriter
    _top_k: int
    _normalize: bool

    def load(self, settings: JsonObject, progress: Progress) -> JsonObject:
        """Load the model.

        Returns the size of its vocabulary, whether weights may be repacked, and ``fallback``: what is not as asked for.
        """
        # llama.cpp's threads wait for each other 500 times a token. By default they spin for long, and on a busy
        # machine keep the one they wait for from running: 3 s a token instead of 40 ms. On an idle one it is all one.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        # Else a failed assertion starts a debugger on this process.
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")
        try:
            # Here, because only this knows what to say when they are missing.
            from ..chat.prompt import PromptWriter
            from ..chat.template import CHATML, ChatTemplate
            from .native import Context
        except (ImportError, OSError, RuntimeError):
            sentence = 'llama.cpp is not installed, or does not load here; pip install "edgewise[llama]"'
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence) from None
        self._context = Context(settings, progress)
        self._top_k = settings["top_k"]
        self._normalize = settings["normalize"]
        vocabulary = self._context.vocabulary
        source = self._context.chat_template or CHATML
        template = ChatTemplate(source, bos=vocabulary.bos_text, eos=vocabulary.eos_text)
        self._prompts = PromptWriter(vocabulary, template)
        return {
            "vocabulary": vocabulary.size,
            "use_extra_buffers": settings["use_extra_buffers"],
            "fallback": self._context.fallback,
        }

    def run(self, call: Parcel, running: RunningCall) -> Events:
        """Generate an answer, or embed texts."""
        from .embedding import embed
        from .generation import generate

        if (texts := call.fields.get("texts")) is None:
            prompt = self._prompt(call.fields)
            events = generate(self._context, prompt, call.fields, running, top_k=self._top_k)
        else:
            events = embed(self._context, texts, running, normalize=self._normalize)
        self._context.rearm()
        running.when_cancelled(self._context.abort)
        return (yield from events)

    def ask(self, question: Parcel) -> Parcel:
        """How many tokens a call's prompt has. Only the vocabulary is used.

        With ``must_fit`` it is CONTEXT_LENGTH where no answer would fit beside it.
        """
        write = self._prompt if question.fields["must_fit"] else self._written
        return Parcel({"prompt_tokens": len(write(question.fields).tokens)})

    def _prompt(self, call: JsonObject) -> Prompt:
        prompt = self._written(call)
        if (tokens := len(prompt.tokens)) >= self._context.size:
            sentence = f"the prompt has {tokens} tokens; with an answer, {self._context.size} are all that fit"
            raise AttemptError(FailureKind.CONTEXT_LENGTH, sentence)
        return prompt

    def _written(self, call: JsonObject) -> Prompt:
        prompt = self._prompts.write(call["messages"], continues=call["continues"])
        if not prompt.tokens:
            # llama.cpp ends the process over a prompt of nothing.
            raise AttemptError(FailureKind.INTERNAL, "the model's chat template makes nothing of these messages")
        return prompt
