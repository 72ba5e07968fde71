"""A wire between a client and a server that tests can cut, as a network does: without a word."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Wire:
    """Passes bytes on to a port of this machine, until it is cut."""

    port: int
    _listener: socket.socket
    _mended: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def own_port(self) -> int:
        """Where clients connect to."""
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Pass nothing on any more, in either direction; no connection is closed."""
        self._mended.clear()

    def mend(self) -> None:
        """Pass on what waits, and what comes."""
        self._mended.set()

    def serve(self) -> None:
        """Take connections until the wire is removed."""
        while True:
            try:
                taken, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(taken,), daemon=True).start()

    def remove(self) -> None:
        """Close everything."""
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def _carry(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while not self._mended.wait(0.05):
                if self._ended.is_set():
                    return
            with socket.create_connection(("127.0.0.1", self.port)) as server:
                self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        while not self._ended.is_set():
            if not self._mended.wait(0.05):
                continue
            for ready in select.select(list(other), [], [], 0.05)[0]:
                if not self._mended.is_set():
                    break
                if not (piece := ready.recv(65536)):
                    return
                other[ready].sendall(piece)


@contextmanager
def a_wire(port: int) -> Iterator[Wire]:
    """A wire to a port while the body runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(port, listener)
        wire.mend()
        threading.Thread(target=wire.serve, daemon=True).start()
        try:
            yield wire
        finally:
            wire.remove()
