"""onnxruntime-genai as a worker's engine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.failure import AttemptError, FailureKind
from ..process.engine import Engine, Events, Parcel, Progress, RunningCall
from ..process.frames import JsonObject
from .admission import admit
from .external_data import require_proven
from .genai_config import FILE, read_config
from .runtime import fallback, missing, physical_cores, prepare, without_cpu
from .unavailable import unavailable

if TYPE_CHECKING:
    from ..chat.prompt import Prompt, PromptWriter
    from ..chat.template import ChatTemplate
    from .genai_native import Model
    from .generation import Writer

TOKENIZER, ABOUT, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
_BESIDE = frozenset({FILE, TOKENIZER, ABOUT, TEMPLATE})
"""What is read beside a model."""
_LARGEST = 16 << 20
_AT_ONCE = 256
"""Tokens of a prompt that the CPU reads together. A call stops between two operators, and one over thousands of tokens
takes longer than a cancelled call may. Not every other provider can go on with a prompt."""


class OnnxGenerationEngine(Engine):
    """One model. A call has the fields of `GenerateInput`; so has a question, and the answer is its length."""

    _prompts: PromptWriter
    _writer: Writer

    def load(self, settings: JsonObject, progress: Progress) -> JsonObject:
        """Open the model and have it say one token. Returns ``fallback``, a sentence where a provider is not there."""
        prepare(settings["threads"])
        try:
            from ..chat.prompt import PromptWriter
            from .generation import Writer
            from .guide import Guides
            from .vocabulary import TokenizerVocabulary
        except ImportError as error:
            raise missing(error, "onnx-genai") from None
        name, path = settings["model"]["name"], Path(settings["model"]["path"])
        proven = settings["model"]["proven"]
        admit(name, path, proven)
        for beside in _BESIDE if settings["tokenizer"] is None else _BESIDE - {TOKENIZER}:
            if path.with_name(beside).is_file():
                require_proven(name, beside, proven)
        config = read_config(name, path.with_name(FILE))
        if settings["context_tokens"] > config.context_tokens:
            why = f"it has a context of {config.context_tokens} tokens; lower `context_tokens`"
            raise unavailable(name, why)
        vocabulary = TokenizerVocabulary(name, settings["tokenizer"] or str(path.with_name(TOKENIZER)))
        self._prompts = PromptWriter(vocabulary, _template(name, path.parent))
        threads = settings["threads"] or physical_cores()
        wanted = without_cpu(settings["providers"])
        for providers in [wanted, []] if wanted else [[]]:
            with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
                config.write(Path(folder), path, threads=threads, providers=providers)
                model = _open(Path(folder))
            if model is not None:
                break
        else:
            raise unavailable(
                name, "onnxruntime-genai refuses it; it is cut short, no decoder, or wants a newer version"
            )
        context, at_once = settings["context_tokens"], settings["context_tokens"] if providers else _AT_ONCE
        guides = Guides(vocabulary, config.vocabulary, config.ends)
        self._writer = Writer(name, model, vocabulary, guides, config.ends, context, settings["top_k"], at_once)
        self._try()
        return {"fallback": fallback(wanted, providers)}

    def run(self, call: Parcel, running: RunningCall) -> Events:
        """Generate an answer."""
        return (yield from self._writer.write(self._prompt(call.fields), call.fields, running))

    def ask(self, question: Parcel) -> Parcel:
        """How many tokens a call's prompt has. Only the vocabulary is used.

        With ``must_fit`` it is CONTEXT_LENGTH where no answer would fit beside it.
        """
        write = self._prompt if question.fields["must_fit"] else self._written
        return Parcel({"prompt_tokens": len(write(question.fields).tokens)})

    def _prompt(self, call: JsonObject) -> Prompt:
        prompt = self._written(call)
        size = self._writer.context_tokens
        if len(prompt.tokens) >= size:
            sentence = f"the prompt has {len(prompt.tokens)} tokens; with an answer, {size} are all that fit"
            raise AttemptError(FailureKind.CONTEXT_LENGTH, sentence)
        return prompt

    def _written(self, call: JsonObject) -> Prompt:
        return self._prompts.write(call["messages"], continues=call["continues"])

    def _try(self) -> None:
        """Prove with constant tokens that the graph runs, and make the first answer no slower than the next."""
        from ..chat.prompt import Prompt

        call: JsonObject = {"max_output_tokens": 1, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": []}
        call |= {"logprobs": None, "response_format": None}
        try:
            for _ in self._writer.write(Prompt([0], [0]), call, RunningCall(1)):
                pass
        except AttemptError:
            raise unavailable(self._writer.name, f"its graph does not run as its {FILE} says") from None


def _open(folder: Path) -> Model | None:
    from .genai_native import GenAiError, Model

    try:
        return Model(folder)
    except GenAiError:
        return None


def _template(model: str, folder: Path) -> ChatTemplate:
    """The chat template that lies beside a model; ChatML where there is none."""
    from ..chat.template import CHATML, ChatTemplate

    try:
        about = _json(folder / ABOUT)
        source = _text(folder / TEMPLATE) or _default(about.get("chat_template")) or CHATML
        return ChatTemplate(source, bos=_token(about, "bos_token"), eos=_token(about, "eos_token"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise unavailable(model, f"the {ABOUT} beside it cannot be read; get the folder again") from None


def _json(path: Path) -> Mapping[str, object]:
    text = _text(path)
    about = json.loads(text) if text else {}
    if not isinstance(about, dict):
        raise TypeError
    return about


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    if path.stat().st_size > _LARGEST:
        raise ValueError
    return path.read_text(encoding="utf-8")


def _default(templates: object) -> str:
    """A template as it is written: alone, or one of several by names."""
    if isinstance(templates, list):
        return str(next((each["template"] for each in templates if each["name"] == "default"), ""))
    return templates if isinstance(templates, str) else ""


def _token(about: Mapping[str, object], key: str) -> str:
    """A token's text, as it is written: alone, or with how it is to be found."""
    written = about.get(key)
    if isinstance(written, dict):
        written = written.get("content")
    return written if isinstance(written, str) else ""
