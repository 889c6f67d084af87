"""A stop sequence is found wherever tokens cut it, and no more is held back than may be the beginning of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.core.answer import Delta, TokenLogprob
from edgewise.router.execution.stop_sequences import StopSequences
from edgewise.router.execution.text import Text

pieces = st.lists(st.text("ab.", max_size=4), max_size=8)
sequences = st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3)


@given(pieces=pieces, sequences=sequences)
def test_what_is_shown_is_all_that_can_be_no_part_of_a_stop_sequence(pieces: list[str], sequences: list[str]) -> None:
    stop, text, shown = StopSequences(sequences), "", ""
    for piece in pieces:
        shown += stop.push(piece)
        text += piece
        found = [at for at in map(text.find, sequences) if at >= 0]
        assert stop.reached == bool(found)
        if found:
            assert shown == text[: min(found)]
            assert stop.flush() == ""
            return
        held = text[len(shown) :]
        assert text.startswith(shown)
        beginnings = {sequence[:n] for sequence in sequences for n in range(1, len(sequence))}
        longest = max((len(each) for each in beginnings if text.endswith(each)), default=0)
        assert len(held) == longest
    assert shown + stop.flush() == text
    assert stop.flush() == ""


def test_a_stop_sequence_of_any_length_takes_no_longer_than_the_text() -> None:
    """Tried from its own end, one of a million letters held the event loop for hours."""
    stop = StopSequences(["a" * 1_000_000])
    shown = "".join(stop.push("ab" * 5) for _ in range(100))
    assert shown + stop.flush() == "ab" * 500


def test_a_text_keeps_the_log_probabilities_of_all_that_came() -> None:
    text = Text(["|"])
    one, two = TokenLogprob("a", -0.5), TokenLogprob("b", -1.5)
    assert text.take(Delta("a", 1, (one,))) == "a"
    assert text.take(Delta("b", 2)) == "b"
    assert text.take(Delta("c|", 1, (two,))) == "c"
    assert text.logprobs == [one, two]
    assert (text.tokens, text.stopped) == (4, True)
    assert (text.sent, text.shown) == ("abc|", "abc")


@pytest.mark.parametrize("stop", [[], ["||"]])
def test_what_was_held_back_is_shown_where_the_answer_ends_without_a_stop(stop: list[str]) -> None:
    text = Text(stop)
    shown = text.take(Delta("a|", 1))
    assert shown + text.end() == "a|"
    assert (text.shown, text.stopped) == ("a|", False)
