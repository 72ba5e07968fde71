"""Frames of STOMP 1.2 as bytes and back; pure.

The reader forgives what has only one meaning (unknown escapes, headers without a colon, text that
is not UTF-8): a broker delivers the same message again until it is acknowledged, and a frame that
ends the connection would end every following one too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEART_BEAT = b"\n"

_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
"""Also in CONNECT: RabbitMQ unescapes it, though STOMP 1.2 would leave it as it is."""
_UNESCAPES = {escaped: plain for plain, escaped in _ESCAPES.items()}
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_LARGEST_HEAD = 64 * 1024


class FrameError(ValueError):
    """The bytes are not STOMP, and what follows cannot be understood either."""


@dataclass(frozen=True)
class Frame:
    """One frame, its headers in order; of a repeated header the first counts."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    dropped_bytes: int = 0
    """The size of a body that was too large to be kept; ``body`` is empty then."""


def encode(frame: Frame) -> bytes:
    """Return the frame as it goes over the wire."""
    lines = [frame.command]
    lines += [f"{_escape(name)}:{_escape(value)}" for name, value in frame.headers.items()]
    if frame.body:
        lines.append(f"content-length:{len(frame.body)}")
    return "\n".join([*lines, "", ""]).encode() + frame.body + b"\0"


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _UNESCAPES.get(found[0], found[0]), text)


class Decoder:
    """Puts frames together from pieces that may end anywhere; of a large body only its size."""

    def __init__(self, largest_body: int) -> None:
        self._largest_body = largest_body
        self._pending = b""
        self._body: _Body | None = None

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Yield the frames that this piece completes; heart-beats yield nothing.

        Raises:
            FrameError: This is not STOMP; the decoder is of no further use.
        """
        rest = self._pending + piece
        self._pending = b""
        while rest:
            if self._body is None:
                self._body, rest = self._head(rest)
                if self._body is None:
                    self._pending = rest
                    return
            rest = self._body.take(rest)
            if self._body.complete:
                frame, self._body = self._body.frame(), None
                yield frame

    def _head(self, rest: bytes) -> tuple[_Body | None, bytes]:
        """Split off command and headers, if they are there."""
        rest = rest.lstrip(b"\r\n")
        found = _END_OF_HEADERS.search(rest)
        if found is None:
            if len(rest) > _LARGEST_HEAD:
                raise FrameError(f"no end of headers within {_LARGEST_HEAD} bytes")
            return None, rest
        command, *lines = rest[: found.start()].decode(errors="replace").split("\n")
        command = command.rstrip("\r")
        if not command.isalpha():
            raise FrameError(f"{command[:40]!r} is no command")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.rstrip("\r").partition(":")
            if colon:
                headers.setdefault(_unescape(name), _unescape(value))
        return _Body(command, headers, self._largest_body), rest[found.end() :]


class _Body:
    """The body of a frame while it arrives, and the NUL after it."""

    def __init__(self, command: str, headers: dict[str, str], largest: int) -> None:
        self._command = command
        self._headers = headers
        self._largest = largest
        length = headers.get("content-length", "").strip()
        self._length = int(length) if length.isascii() and length.isdigit() else None
        self._kept = bytearray()
        self._size = 0
        self.complete = False

    def take(self, piece: bytes) -> bytes:
        """Keep what belongs to the body, and return what comes after it."""
        if self._length is None:
            end = piece.find(b"\0")
            mine = len(piece) if end < 0 else end
        else:
            mine = min(len(piece), self._length - self._size)
        self._size += mine
        if self._size <= self._largest:
            self._kept += piece[:mine]
        else:
            self._kept.clear()
        if mine == len(piece):
            return b""
        if piece[mine] != 0:
            raise FrameError(f"{self._command} of {self._length} bytes does not end where it says")
        self.complete = True
        return piece[mine + 1 :]

    def frame(self) -> Frame:
        dropped = self._size if self._size > self._largest else 0
        return Frame(self._command, self._headers, bytes(self._kept), dropped)
