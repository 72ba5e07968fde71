"""How much of a response is read, and for how long: bounded whatever the server sends.

The HTTP client limits the wait for each piece of a response, but not their number, and decompresses
without a limit. So bodies are read and decompressed here, and every read of the network has to be
over before the deadline of the whole request.
"""

from __future__ import annotations

import ssl
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import httpcore
import httpx

ENCODING = "gzip"
"""The only compression that is asked for and accepted."""
LARGEST_BODY = 16 << 20
"""Bytes of a decompressed response; a page of 300 rows has about one million."""
LARGEST_ERROR_BODY = 16 << 10
"""Bytes of a response that is not a success; the rest is not read."""
_CHUNK = 1 << 16
_GZIP = 31
_ABOUT_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class UnusableResponseError(httpx.RequestError):
    """A response arrived that is too large, or compressed in a way that was not asked for."""


class Deadline:
    """When a request has to be over."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds
        self._seconds = seconds
        self.missed = False

    def remaining(self) -> float:
        """Seconds that are left.

        Raises:
            httpx.ReadTimeout: None are.
        """
        seconds = self._end - self._monotonic()
        if seconds <= 0:
            self.missed = True
            raise httpx.ReadTimeout(f"not complete after {self._seconds:g} seconds")
        return seconds


_current = threading.local()


@contextmanager
def until(deadline: Deadline) -> Iterator[None]:
    """Apply the deadline to everything that this thread reads from and writes to the network.

    Connections that it opens are closed where the body fails: httpcore forgets the one to a SOCKS
    proxy that refuses.
    """
    _current.deadline, _current.opened = deadline, []
    try:
        yield
    except BaseException:
        for stream in _current.opened:
            stream.close()
        raise
    finally:
        _current.deadline, _current.opened = None, []


def read_response(response: httpx.Response, deadline: Deadline) -> httpx.Response:
    """Read a streamed response and close it.

    Raises:
        httpx.RequestError: The connection broke, the deadline passed, or a successful response is
            too large or cannot be decompressed.
    """
    body = bytearray()
    try:
        if response.is_success:
            for chunk in _decoded(response, deadline):
                body += chunk
                _require_size(body)
        else:
            with suppress(UnusableResponseError):
                for chunk in _decoded(response, deadline):
                    body += chunk
                    if len(body) > LARGEST_ERROR_BODY:
                        del body[LARGEST_ERROR_BODY:]
                        break
    finally:
        response.close()
        response.stream = httpx.ByteStream(b"")  # the stream refers to the response: a cycle
    headers = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name not in _ABOUT_THE_BODY
    ]
    return httpx.Response(
        response.status_code,
        headers=httpx.Headers(headers, encoding=response.headers.encoding),
        content=bytes(body),
        request=response.request,
    )


def _require_size(body: bytearray) -> None:
    if len(body) > LARGEST_BODY:
        raise UnusableResponseError(f"it is larger than {LARGEST_BODY >> 20} MiB")


def _decoded(response: httpx.Response, deadline: Deadline) -> Iterator[bytes]:
    """The decompressed body in small pieces."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError("responses are streamed synchronously")
    if encoding in {"", "identity"}:
        chunks: Iterable[bytes] = response.stream
    elif encoding in {ENCODING, f"x-{ENCODING}"}:
        chunks = _decompressed(response.stream)
    else:
        raise UnusableResponseError(f"it is encoded as {encoding[:40]!r}, not as {ENCODING}")
    for chunk in chunks:
        deadline.remaining()
        yield chunk


def _decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(_GZIP)
    for chunk in chunks:
        rest = chunk
        while rest:
            try:
                yield decompressor.decompress(rest, _CHUNK)
            except zlib.error as error:
                raise UnusableResponseError(f"it cannot be decompressed: {error}") from error
            rest = decompressor.unconsumed_tail


def observe_deadlines(client: httpx.Client) -> None:
    """Let the client's connections end each read and write at the deadline of their request."""
    transports = [client._transport, *client._mounts.values()]  # noqa: SLF001 - not public
    for transport in transports:
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.ConnectionPool):
            pool._network_backend = _Network(pool._network_backend)  # noqa: SLF001 - not public


class _Network(httpcore.NetworkBackend):
    """Opens connections that observe deadlines."""

    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect."""
        opened = _Stream(
            self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        )
        if (streams := getattr(_current, "opened", None)) is not None:
            streams.append(opened)
        return opened


class _Stream(httpcore.NetworkStream):
    """A connection whose reads and writes end at the deadline of the current request."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there."""
        return self._stream.read(max_bytes, _at_most(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        self._stream.write(buffer, _at_most(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Encrypt the connection."""
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        """What else is known about the connection."""
        return self._stream.get_extra_info(info)


def _at_most(timeout: float | None) -> float | None:
    deadline: Deadline | None = getattr(_current, "deadline", None)
    if deadline is None:
        return timeout
    try:
        remaining = deadline.remaining()
    except httpx.ReadTimeout as error:
        raise httpcore.ReadTimeout(str(error)) from error
    return remaining if timeout is None else min(timeout, remaining)
