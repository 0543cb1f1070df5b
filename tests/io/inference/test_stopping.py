"""Whole characters, unseen stop sequences, whatever the tokens."""

from hypothesis import given
from hypothesis import strategies as st

from teale_io.inference.stopping import StoppingText


def test_a_character_is_shown_when_its_last_byte_has_come() -> None:
    text = StoppingText([])
    assert [text.feed(bytes([byte])) for byte in "a€".encode()] == ["a", "", "", "€"]


def test_half_a_character_at_the_end_is_marked() -> None:
    text = StoppingText([])
    assert text.feed("€".encode()[:2]) == ""
    assert text.finish() == "\ufffd"


def test_what_could_become_a_stop_sequence_is_held_back_until_it_is_not() -> None:
    text = StoppingText(["END"])
    assert [text.feed(piece) for piece in (b"the E", b"N", b"d EN")] == ["the ", "", "ENd "]
    assert text.finish() == "EN"
    assert not text.stopped


def test_the_earliest_stop_sequence_ends_the_text() -> None:
    text = StoppingText(["world", "lo"])
    assert text.feed(b"hello world") == "hel"
    assert text.stopped
    assert (text.feed(b"more"), text.finish()) == ("", "")


@given(st.text("ab€", max_size=30), st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3), st.data())
def test_how_the_bytes_are_cut_never_changes_the_text(whole: str, stops: list[str], data: st.DataObject) -> None:
    raw = whole.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))))
    text = StoppingText(stops)
    shown = [text.feed(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    shown.append(text.finish())
    ends = [at + len(stop) for stop in stops if (at := whole.find(stop)) >= 0]
    if not ends:
        assert "".join(shown) == whole
    else:
        # Cut finely, the stop sequence that is complete first wins; cut coarsely, the one that begins first.
        assert text.stopped
        assert whole.startswith("".join(shown))
        assert not any(stop in "".join(shown) for stop in stops)
