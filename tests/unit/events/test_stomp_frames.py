"""STOMP frames as bytes and back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.events.stomp import HEART_BEAT, Decoder, Frame, FrameError, encode

LARGEST = 1000

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
headers = st.dictionaries(texts.filter(lambda name: name != "content-length"), texts, max_size=4)
frames = st.builds(Frame, st.sampled_from(["SEND", "MESSAGE", "ERROR"]), headers, st.binary())


def decoded(*pieces: bytes, largest: int = LARGEST) -> list[Frame]:
    decoder = Decoder(largest)
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def without_length(frame: Frame) -> Frame:
    kept = {name: value for name, value in frame.headers.items() if name != "content-length"}
    return Frame(frame.command, kept, frame.body, frame.dropped_bytes)


@given(st.lists(frames, max_size=4), st.lists(st.integers(1, 60), min_size=1))
def test_frames_come_back_however_the_bytes_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    wire = HEART_BEAT.join([b"", *(encode(frame) for frame in sent), b""])
    pieces, at, turn = [], 0, 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        pieces.append(wire[at : at + size])
        at, turn = at + size, turn + 1
    assert [without_length(frame) for frame in decoded(*pieces)] == sent


@given(st.binary())
def test_bytes_from_anywhere_are_frames_or_an_error_and_never_anything_else(wire: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert all(frame.command.isalpha() for frame in decoded(wire))


def test_headers_are_escaped() -> None:
    wire = encode(Frame("SEND", {"na:me": "one\ntwo\r:\\"}))
    assert wire == b"SEND\nna\\cme:one\\ntwo\\r\\c\\\\\n\n\0"


def test_lines_may_end_as_on_windows_and_the_first_of_repeated_headers_counts() -> None:
    wire = b"\r\n\nMESSAGE\r\na:1\r\na:2\r\n\r\nbody\0\r\n"
    assert decoded(wire) == [Frame("MESSAGE", {"a": "1"}, b"body")]


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        (b"no colon", {}),
        (rb"escape:\t\q\c", {"escape": r"\t\q:"}),
        (b"latin:\xe9", {"latin": "\ufffd"}),
        (b"content-length:many", {"content-length": "many"}),
    ],
)
def test_oddities_with_one_meaning_do_not_end_the_connection(
    line: bytes, headers: dict[str, str]
) -> None:
    assert decoded(b"MESSAGE\n" + line + b"\n\nbody\0") == [Frame("MESSAGE", headers, b"body")]


@pytest.mark.parametrize("piece", [1, 700, 5000])
def test_of_a_large_body_only_the_size_is_kept(piece: int) -> None:
    body = bytes(LARGEST + 1)
    wire = encode(Frame("MESSAGE", {"ack": "1"}, body)) + encode(Frame("RECEIPT"))
    pieces = [wire[at : at + piece] for at in range(0, len(wire), piece)]
    large, receipt = decoded(*pieces)
    assert (large.body, large.dropped_bytes, large.headers["ack"]) == (b"", LARGEST + 1, "1")
    assert receipt == Frame("RECEIPT")


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"MESSAGE\ncontent-length:2\n\nlonger\0",
        b"MESSAGE\n" + b"x" * 600_000,
    ],
)
def test_what_is_not_stomp_is_an_error(wire: bytes) -> None:
    with pytest.raises(FrameError):
        decoded(wire)
