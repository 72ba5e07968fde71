"""Reads what a process prints line by line as it comes, never waiting beyond a deadline."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 16
_MOST_COMPLAINTS = 1 << 16


class OutputReader:
    """The outputs of one process; both are read at once, so that neither of them can block it."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        """The deadline is ``seconds`` from now; nothing may have been read before."""
        self._process = process
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._rest = b""
        self._complaints = b""
        self._last_complaints = b""

    def lines(self) -> Iterator[str]:
        """Yield the lines of standard output, without their ends; then wait for the end.

        Only a line feed ends a line. What stands after the last one is in :attr:`rest`.

        Raises:
            subprocess.TimeoutExpired: the deadline passed.
        """
        with selectors.DefaultSelector() as selector:
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    selector.register(stream.fileno(), selectors.EVENT_READ, stream)
            while selector.get_map():
                for key, _ in selector.select(self._left()):
                    block = os.read(key.fd, _BLOCK)
                    if not block:
                        selector.unregister(key.fd)
                    elif key.data is self._process.stdout:
                        yield from self._whole_lines(block)
                    else:
                        self._keep_complaint(block)
        self._process.wait(self._left())

    @property
    def rest(self) -> str:
        """The last line, if it had no end."""
        return self._rest.decode("utf-8", "replace")

    @property
    def complaints(self) -> str:
        """Standard error; of a flood, its beginning and its end."""
        return (self._complaints + self._last_complaints).decode("utf-8", "replace")

    def _keep_complaint(self, block: bytes) -> None:
        room = _MOST_COMPLAINTS - len(self._complaints)
        self._complaints += block[:room]
        self._last_complaints = (self._last_complaints + block[room:])[-_MOST_COMPLAINTS:]

    def _whole_lines(self, block: bytes) -> Iterator[str]:
        lines, separator, rest = block.rpartition(b"\n")
        if not separator:
            self._rest += block
            return
        text = (self._rest + lines).decode("utf-8", "replace")
        self._rest = rest
        yield from text.split("\n")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise subprocess.TimeoutExpired(self._process.args, self._seconds)
        return left
