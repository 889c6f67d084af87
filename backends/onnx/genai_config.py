"""A model's ``genai_config.json``: what of it is taken over, and what never is.

The file comes with the model, from outside, and can name a library to load (``custom_ops_library``), files anywhere, a
provider that sends tensors away, and a place to write profiles to. So the library never reads it. It reads one of our
own, with the numbers and names that describe the model's graph, and nothing else of the original.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.failure import AttemptError
from ..process.frames import JsonObject
from .runtime import WAITING
from .unavailable import unavailable

FILE = "genai_config.json"
_LARGEST = 1 << 20
_LINK = "model"

_MODEL = ("type", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "context_length")
_DECODER = (
    "head_size",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "layer_types",
)
_PORTS = ("inputs", "outputs")
_WINDOW = ("window_size", "pad_value", "alignment", "slide_key_value_cache", "slide_inputs", "layers")


@dataclass(frozen=True, slots=True)
class GenAiConfig:
    """What a model says of itself."""

    ends: frozenset[int]
    """The tokens that end a turn."""
    context_tokens: int
    vocabulary: int
    body: JsonObject
    """What describes the graph, for the library."""

    def write(self, folder: Path, model: Path, *, threads: int, providers: Sequence[str]) -> None:
        """Make the folder that the library reads: a file of these words and our session options, and a link.

        The link leads to the model's own folder, and ONNX Runtime takes external data from nowhere else.
        """
        options = {
            "log_severity_level": 4,  # even errors stay unwritten: they quote values
            "intra_op_num_threads": threads,
            **WAITING,
            "provider_options": [{provider: {}} for provider in providers],
        }
        body = json.loads(json.dumps(self.body))
        body["model"]["decoder"] |= {"filename": f"{_LINK}/{model.name}", "session_options": options}
        (folder / _LINK).symlink_to(model.parent)
        (folder / FILE).write_text(json.dumps(body), encoding="utf-8")


def read_config(model: str, path: Path) -> GenAiConfig:
    """Read the file beside a model. Raises MODEL_UNAVAILABLE for one that describes no decoder."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError
        whole = json.loads(path.read_text(encoding="utf-8"))
        return _config(whole["model"], whole.get("search", {}))
    except FileNotFoundError:
        why = f"there is no {FILE} beside it; `generate` wants a folder made by onnxruntime-genai's model builder"
        raise unavailable(model, why) from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise _unreadable(model) from None


def _unreadable(model: str) -> AttemptError:
    return unavailable(model, f"the {FILE} beside it describes no text decoder; get the folder again")


def _config(model: Mapping[str, Any], search: Mapping[str, Any]) -> GenAiConfig:
    ends = model["eos_token_id"]
    decoder = model["decoder"]
    body = {key: _plain(model[key]) for key in _MODEL if key in model}
    graph = {key: _plain(decoder[key]) for key in _DECODER if key in decoder}
    graph |= {key: {name: _name(value) for name, value in decoder[key].items()} for key in _PORTS if key in decoder}
    if window := decoder.get("sliding_window"):
        graph["sliding_window"] = {key: _plain(window[key]) for key in _WINDOW if key in window}
    shares = search.get("past_present_share_buffer", False) is True
    return GenAiConfig(
        frozenset(_number(end) for end in (ends if isinstance(ends, list) else [ends])),
        _number(model["context_length"]),
        _number(model["vocab_size"]),
        {
            "model": {**body, "decoder": graph},
            "search": {"past_present_share_buffer": shares, "max_length": _number(model["context_length"])},
        },
    )


def _plain(value: object) -> object:
    """A number, a short name, or a list of them. Raises `ValueError` for anything else."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool) else _number(value) if isinstance(value, int) else _name(value)


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 2**31:
        raise ValueError
    return value


def _name(value: object) -> str:
    """A name of the graph. None is a path: a name with `%d` in it goes into the library's printf."""
    if not isinstance(value, str) or len(value) > 256 or value.count("%") > 1 or ("%" in value and "%d" not in value):
        raise ValueError
    return value
