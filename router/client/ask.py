"""From a call's arguments to content and labels, with an `InvalidRequest` for what cannot be meant."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...core.content import GenerateInput, Message, Role
from ...core.duration import parse_duration
from ...core.errors import InvalidRequest
from ...core.request import Labels, Priority, Residency, Task
from ..options import GenerateOptions, Prompt, RequestOptions, StreamOptions

if TYPE_CHECKING:
    from ...policies import Policy

_BYTES_PER_TOKEN = 3
_MOST_LOGPROBS = 20
_MOST_OUTPUT_TOKENS = 2**31 - 1
_TOKENS_BESIDE_TEXT = 8
"""What a chat template adds to a message, about."""

_NO_TAGS: Mapping[str, str] = MappingProxyType({})
_SHORT_NAME = re.compile(r"[\w.:+-]{1,32}")
_LABEL_KEYS = frozenset(RequestOptions.__annotations__)
_GENERATE_KEYS = frozenset(GenerateOptions.__annotations__)
_STREAM_KEYS = frozenset(StreamOptions.__annotations__)
_FAILOVERS = ("continue", "restart", "none")


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """The conversation that a prompt stands for. Raises `InvalidRequest` for an empty or malformed one."""
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message.user(prompt),)
    elif isinstance(prompt, Sequence) and all(isinstance(message, Message) for message in prompt):
        messages = tuple(_checked(message) for message in prompt if isinstance(message, Message))
    else:
        raise InvalidRequest(f"the prompt is a {type(prompt).__name__}; give a text or a list of Message")
    if not messages:
        raise InvalidRequest("the prompt has no message; give at least one")
    if not any(message.text.strip() for message in messages if message.role is not Role.SYSTEM):
        raise InvalidRequest("the prompt is empty; give a text to answer")
    return messages


def _checked(message: Message) -> Message:
    if not isinstance(message.role, Role):
        raise InvalidRequest("a message's role is no Role; make messages by Message.system, .user or .assistant")
    if not isinstance(message.text, str):
        raise InvalidRequest(f"a message's text is a {type(message.text).__name__}; give a str")
    if message.data_class is not None and not isinstance(message.data_class, str):
        raise InvalidRequest("a message's data_class is no name; give a text, or leave it out")
    return message


def texts_of(texts: Sequence[str], task: Task) -> tuple[str, ...]:
    """The texts of a call that takes several. Raises `InvalidRequest` for one alone, and for none."""
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise InvalidRequest(f"{task} wants a list of texts, like ['a text']")
    if not texts:
        raise InvalidRequest(f"{task} wants at least one text")
    return tuple(texts)


def shown(value: object) -> str:
    """A value for an error's text: numbers and short names only, since what stands there by mistake may be content."""
    if isinstance(value, str):
        return repr(value) if _SHORT_NAME.fullmatch(value) else "a text"
    if value is None or isinstance(value, int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def count_bytes(text: object, what: str) -> int:
    """The length of a text in UTF-8. Raises `InvalidRequest` for what is not a text, or not valid Unicode."""
    if not isinstance(text, str):
        raise InvalidRequest(f"{what} is a {type(text).__name__}; give a str")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        pass
    raise InvalidRequest(f"{what} is not valid UTF-8 (it holds a lone surrogate); decode it with errors='replace'")


def prompt_tokens(texts: Sequence[str], what: str) -> int:
    """An estimate of the tokens in these texts: UTF-8 bytes / 3, and a few for each."""
    return sum(math.ceil(count_bytes(text, what) / _BYTES_PER_TOKEN) + _TOKENS_BESIDE_TEXT for text in texts)


def generate_input(messages: tuple[Message, ...], options: GenerateOptions) -> GenerateInput:
    """The content of a ``generate`` or ``stream``."""
    maximum = options.get("max_output_tokens", 256)
    if not _is_int(maximum) or not 1 <= maximum <= _MOST_OUTPUT_TOKENS:
        raise InvalidRequest(f"max_output_tokens is {shown(maximum)}; give a whole number of 1 or more")
    logprobs = options.get("logprobs")
    if logprobs is not None and not (_is_int(logprobs) and 0 <= logprobs <= _MOST_LOGPROBS):
        raise InvalidRequest(f"logprobs is {shown(logprobs)}; give a whole number from 0 to {_MOST_LOGPROBS}, or None")
    seed = options.get("seed")
    if seed is not None and not (_is_int(seed) and 0 <= seed < 2**32):
        raise InvalidRequest(f"seed is {shown(seed)}; give a whole number from 0 to 2**32 - 1, or None")
    return GenerateInput(
        messages=messages,
        max_output_tokens=maximum,
        temperature=_number(options.get("temperature", 0.8), "temperature", 0.0, 5.0),
        top_p=_number(options.get("top_p", 0.95), "top_p", 0.001, 1.0),
        seed=seed,
        stop=_stop(options.get("stop", ())),
        response_format=_response_format(options.get("response_format")),
        logprobs=logprobs,
    )


def labels_of(
    task: Task,
    options: RequestOptions,
    policy: Policy,
    *,
    tokens: int,
    message_classes: Sequence[str | None] = (),
    content: GenerateInput | None = None,
    streaming: bool = False,
    model: str = "",
) -> Labels:
    """The labels of a call, all but what only the policy can judge."""
    known = _LABEL_KEYS if content is None else _STREAM_KEYS if streaming else _GENERATE_KEYS
    if not options.keys() <= known:
        unknown = min(options.keys() - known)
        raise InvalidRequest(f"{task} takes no option {shown(unknown)}; it takes: {', '.join(sorted(known))}")
    given = _names(options.get("data_class"), "data_class")
    classes = dict.fromkeys([*given, *(name for name in message_classes if name is not None)])
    backends = _names(options.get("backend"), "backend")
    if classes:
        _refuse_what_is_no_name(classes, policy.walls.by_class, "data_class")
    if backends:
        _refuse_what_is_no_name(backends, [terms.name for terms in policy.terms], "backend")
    return Labels(
        task=task,
        data_classes=tuple(classes),
        unclassed=not given and (not message_classes or None in message_classes),
        latency_budget=_budget(options.get("latency_budget"), "latency_budget"),
        first_token_budget=_budget(options.get("first_token_budget"), "first_token_budget"),
        max_output_tokens=0 if content is None else content.max_output_tokens,
        prompt_tokens=tokens,
        priority=_priority(options["priority"]) if "priority" in options else Priority.NORMAL,
        tags=_tags(options["tags"]) if "tags" in options else _NO_TAGS,
        residency=_residency(options.get("residency"), policy),
        backends=backends,
        model=model,
        streaming=streaming,
        continues=content is not None and content.continues,
        constrained=content is not None and content.response_format is not None,
        logprobs=content is not None and content.logprobs is not None,
        idempotent=_flag(options.get("idempotent", True), "idempotent"),
    )


def stream_failover(options: StreamOptions) -> str | None:
    """What the call says of a stream that breaks; ``None`` where it leaves that to the policy."""
    value = options.get("stream_failover")
    if value is not None and value not in _FAILOVERS:
        raise InvalidRequest(f"stream_failover is {shown(value)}; give one of: {', '.join(_FAILOVERS)}")
    return value


def identifier(value: str | None, what: str) -> str | None:
    """A name that the caller chose for a conversation or a repeated request."""
    if value is not None and not (isinstance(value, str) and value.isascii() and value.isprintable() and value):
        raise InvalidRequest(f"{what} is no name; give printable ASCII text, or leave it out")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{what} is {shown(value)}; give True or False")
    return value


def _number(value: object, what: str, lowest: float, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise InvalidRequest(f"{what} is {shown(value)}; give a number from {lowest:g} to {highest:g}")
    return float(value)


def _budget(value: float | str | None, what: str) -> float | None:
    if value is None:
        return None
    with suppress(ValueError):
        seconds = parse_duration(value)
        if seconds > 0:
            return seconds
    raise InvalidRequest(f"{what} is {shown(value)}; give more than 0 seconds, like 2.5 or '800ms'")


def _priority(value: str) -> Priority:
    try:
        return Priority(value)
    except ValueError:
        pass
    raise InvalidRequest(f"priority is {shown(value)}; give one of: {', '.join(Priority)}")


def _names(value: str | Sequence[str] | None, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else _as_tuple(value, what)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidRequest(f"{what} names nothing; give a name, or a list of names, or leave it out")
    return names


def _refuse_what_is_no_name(names: Iterable[str], known: Collection[str], what: str) -> None:
    """Before the policy looks it up and quotes it: a prompt may stand there by mistake."""
    if any(name not in known and not _SHORT_NAME.fullmatch(name) for name in names):
        raise InvalidRequest(f"{what} is a text that is no name; give one of: {', '.join(sorted(known))}")


def _as_tuple(value: Sequence[str], what: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidRequest(f"{what} is {shown(value)}; give a text or a list of texts")
    return tuple(value)


def _tags(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in (*value, *value.values())):
        raise InvalidRequest("tags must be texts, like {'department': 'ward-3'}")
    return MappingProxyType(dict(value))


def _residency(value: Mapping[str, Sequence[str]] | None, policy: Policy) -> Residency | None:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest("residency is no mapping; give one like {'process_in': ['DE']}")
    return None if value is None else policy.residency(value)


def _stop(value: str | Sequence[str]) -> tuple[str, ...]:
    sequences = (value,) if isinstance(value, str) else _as_tuple(value, "stop")
    for sequence in sequences:
        if count_bytes(sequence, "a stop sequence") == 0:
            raise InvalidRequest("a stop sequence is empty; leave it out")
    return sequences


def _response_format(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if value is None:
        return None
    wanted = {"json_object": set(), "json_schema": {"schema"}, "grammar": {"grammar"}}
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in wanted or set(value) != {"type"} | wanted[kind]:
        raise InvalidRequest(
            "response_format must be {'type': 'json_object'}, {'type': 'json_schema', 'schema': {…}} "
            "or {'type': 'grammar', 'grammar': '…'}"
        )
    if not isinstance(value.get("grammar", ""), str):
        raise InvalidRequest("response_format's grammar is no text; give GBNF")
    return _as_json(value)


def _as_json(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The value, if JSON can say it: a schema that holds itself or an object of the program's ends here."""
    try:
        plain: Mapping[str, Any] = json.loads(json.dumps(value, allow_nan=False))
        return plain
    except (TypeError, ValueError, RecursionError):
        pass
    raise InvalidRequest("response_format cannot be said in JSON; build it of dicts, lists, texts and numbers")
