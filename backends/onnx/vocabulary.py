"""A tokenizer.json as what a prompt is written with, and the text of tokens as they come. Runs in the worker."""

from __future__ import annotations

from .tokenizer_file import read_tokenizer

_BROKEN = "\ufffd"
_LONGEST_CHARACTER = 4


class TokenizerVocabulary:
    """A model's tokens, by its tokenizer.json. May be used from any thread."""

    def __init__(self, model: str, path: str) -> None:
        self._plain = read_tokenizer(model, path).tokenizer
        self._plain.encode_special_tokens = True
        self.tokenizer = read_tokenizer(model, path).tokenizer
        special = {
            id_: token.content for id_, token in self.tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self.control_tokens = frozenset(special)
        self.control_texts = frozenset(text for text in special.values() if text)
        self.size: int = self.tokenizer.get_vocab_size()
        framed = self.tokenizer.encode("").ids
        self.begins_with: int | None = framed[0] if framed else None

    def tokenise(self, text: str, *, control: bool) -> list[int]:
        """The tokens of a text. With ``control``, control tokens written out in it become themselves."""
        tokenizer = self.tokenizer if control else self._plain
        return list(tokenizer.encode(text, add_special_tokens=False).ids)


class TokenText:
    """The text of tokens as they come.

    A token's text may depend on the one before it, and a character may take several tokens. So each is decoded together
    with those that were shown last, and held back while the text ends within a character (as Hugging Face's
    text-generation-inference does). Control tokens have no text.
    """

    def __init__(self, vocabulary: TokenizerVocabulary, before: int) -> None:
        """``before`` is the prompt's last token."""
        self._vocabulary = vocabulary
        self._shown = [before]
        self._held: list[int] = []

    def add(self, token: int) -> str:
        """One more token; returns what is whole now."""
        if token in self._vocabulary.control_tokens:
            return ""
        self._held.append(token)
        text = self._text(self._held)
        if not text.endswith(_BROKEN):
            return self._show(len(self._held), text)
        # The last three may yet become a character; what lies before them never will.
        broken = len(self._held) - (_LONGEST_CHARACTER - 1)
        return self._show(broken, self._text(self._held[:broken])) if broken > 0 else ""

    def finish(self) -> str:
        """No more tokens will come; returns the rest."""
        return self._text(self._held) if self._held else ""

    def whole(self) -> str:
        """More tokens would have come; returns the rest without the character that it may end within."""
        return self.finish().rstrip(_BROKEN)

    def piece(self, token: int) -> str:
        """What this token would add as the next one; U+FFFD for what is no whole character."""
        return self._text([*self._held, token])[len(self._text(self._held)) :]

    def _show(self, count: int, text: str) -> str:
        self._shown, self._held = self._held[:count], self._held[count:]
        return text

    def _text(self, tokens: list[int]) -> str:
        return self._decode(self._shown + tokens)[len(self._decode(self._shown)) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._vocabulary.tokenizer.decode(tokens, skip_special_tokens=False))
