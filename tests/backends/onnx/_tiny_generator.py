"""A decoder of a few thousand random weights, in the form that onnxruntime-genai runs; no torch is needed for it.

One layer of true attention over a cache of keys and values, so that what was read before matters. Its vocabulary is the
256 bytes and the two control tokens of ChatML. `write_reciter` makes one that says a text instead, byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import onnx
import tokenizers
from onnx import TensorProto, helper

CONTEXT = 512
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BEGIN, _END = "<|im_start|>", "<|im_end|>"
_HEADS, _HEAD, _HIDDEN = 2, 8, 16


def write_generator(folder: Path, context: int = CONTEXT) -> Path:
    """A model that says something, always another thing to another prompt. Returns the path of its ONNX file.

    With a ``context`` of thousands, reading a long prompt takes seconds.
    """
    tokenizer = _write_tokenizer(folder)
    random = numpy.random.default_rng(7)
    likes = numpy.full(tokenizer.get_vocab_size(), -1000.0)
    for letter in "etaoinshrdlu .,":
        likes[tokenizer.encode(letter).ids] = 0.0
    weights = {
        "embedding": random.normal(0, 1, (len(likes), _HIDDEN)),
        "position": random.normal(0, 1, (context, _HIDDEN)),
        **{name: random.normal(0, 0.6, (_HIDDEN, _HIDDEN)) for name in ("q", "k", "v")},
        "head": random.normal(0, 1.5, (_HIDDEN, len(likes))),
        "likes": likes,
    }
    return _write(folder, weights, tokenizer)


def write_reciter(folder: Path, text: str, words: Sequence[str] = (), tokens_said: int | None = None) -> Path:
    """A model that says ``text``, in which no byte may come twice, and ends its turn; whatever it is asked.

    Each of the ``words`` is one token. With ``tokens_said`` it ends after so many tokens, perhaps within a character.
    """
    tokenizer = _write_tokenizer(folder, words)
    size = tokenizer.get_vocab_size()
    said = [*tokenizer.encode("\n").ids, *tokenizer.encode(text).ids[:tokens_said], tokenizer.token_to_id(_END)]
    assert len(set(said)) == len(said), "a byte comes twice"
    table = numpy.zeros((size, size))
    for token, following in pairwise(said):
        table[token, following] = 30.0
    weights = {
        "embedding": numpy.eye(size),
        "position": numpy.zeros((CONTEXT, size)),
        **{name: numpy.zeros((size, _HIDDEN)) for name in ("q", "k", "v")},
        "head": table,
        "likes": numpy.zeros(size),
    }
    return _write(folder, weights, tokenizer)


def _write_tokenizer(folder: Path, words: Sequence[str] = ()) -> tokenizers.Tokenizer:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: number for number, letter in enumerate(alphabet)}, [])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([_BEGIN, _END])
    tokenizer.add_tokens(list(words))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": CHATML, "bos_token": _BEGIN, "eos_token": {"content": _END}})
    )
    return tokenizer


def _write(folder: Path, weights: dict[str, Any], tokenizer: tokenizers.Tokenizer) -> Path:
    path = folder / "model.onnx"
    constants = {name: value.astype(numpy.float32) for name, value in weights.items()}
    constants |= {
        "heads": numpy.array([0, 0, _HEADS, _HEAD], dtype=numpy.int64),
        "joined": numpy.array([0, 0, _HIDDEN], dtype=numpy.int64),
        "scale": numpy.float32(_HEAD**-0.5),
        "never": numpy.float32(-1e9),
        "zero": numpy.int64(0),
        "one": numpy.int64(1),
        "third_axis": numpy.array([2], dtype=numpy.int64),
        "outer_axes": numpy.array([1, 3], dtype=numpy.int64),
        "out": weights.get("out", numpy.eye(_HIDDEN, weights["embedding"].shape[1])).astype(numpy.float32),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["token_vectors"]),
        node("Gather", ["position", "position_ids"], ["position_vectors"]),
        node("Add", ["token_vectors", "position_vectors"], ["x"]),
    ]
    for name, past in (("q", None), ("k", "past_key_values.0.key"), ("v", "past_key_values.0.value")):
        nodes += [
            node("MatMul", ["x", name], [f"{name}_flat"]),
            node("Reshape", [f"{name}_flat", "heads"], [f"{name}_split"]),
            node("Transpose", [f"{name}_split"], [f"{name}_heads"], perm=[0, 2, 1, 3]),
        ]
        if past is not None:
            present = past.replace("past_key_values", "present")
            nodes.append(node("Concat", [past, f"{name}_heads"], [present], axis=2))
    nodes += [
        node("Transpose", ["present.0.key"], ["turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q_heads", "turned"], ["raw"]),
        node("Mul", ["raw", "scale"], ["scores"]),
        node("Shape", ["present.0.key"], ["extent"]),
        node("Gather", ["extent", "third_axis"], ["length_vector"]),
        node("Squeeze", ["length_vector"], ["length"]),
        node("Range", ["zero", "length", "one"], ["columns"]),
        node("Unsqueeze", ["position_ids", "outer_axes"], ["rows"]),
        node("Greater", ["columns", "rows"], ["later"]),
        node("Where", ["later", "never", "scores"], ["masked"]),
        node("Softmax", ["masked"], ["weights"], axis=-1),
        node("MatMul", ["weights", "present.0.value"], ["seen"]),
        node("Transpose", ["seen"], ["seen_split"], perm=[0, 2, 1, 3]),
        node("Reshape", ["seen_split", "joined"], ["seen_flat"]),
        node("MatMul", ["seen_flat", "out"], ["attended"]),
        node("Add", ["x", "attended"], ["y"]),
        node("MatMul", ["y", "head"], ["unbiased"]),
        node("Add", ["unbiased", "likes"], ["logits"]),
    ]
    ids = {"input_ids": ["b", "s"], "attention_mask": ["b", "t"], "position_ids": ["b", "s"]}
    cache: list[int | str | None] = ["b", _HEADS, "p", _HEAD]
    size = tokenizer.get_vocab_size()
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            *(helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in ids.items()),
            *(
                helper.make_tensor_value_info(f"past_key_values.0.{part}", TensorProto.FLOAT, cache)
                for part in ("key", "value")
            ),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "s", size]),
            *(
                helper.make_tensor_value_info(f"present.0.{part}", TensorProto.FLOAT, ["b", _HEADS, "t", _HEAD])
                for part in ("key", "value")
            ),
        ],
        [onnx.numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": path.name,
        "head_size": _HEAD,
        "hidden_size": _HIDDEN,
        "inputs": {
            **{name: name for name in ids},
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": _HEADS,
        "num_hidden_layers": 1,
        "num_key_value_heads": _HEADS,
    }
    end = tokenizer.token_to_id(_END)
    config = {
        "model": {
            "bos_token_id": tokenizer.token_to_id(_BEGIN),
            "context_length": len(weights["position"]),
            "decoder": decoder,
            "eos_token_id": [end],
            "pad_token_id": end,
            "type": "llama",
            "vocab_size": size,
        },
        "search": {"max_length": len(weights["position"]), "past_present_share_buffer": False, "top_k": 40},
    }
    (folder / "genai_config.json").write_text(json.dumps(config, indent=2))
    return path
