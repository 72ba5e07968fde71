"""What to say when a broker says no, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from waldur_site_agent.events.stomp.frames import Frame

_LONGEST_QUOTE = 300


def quoted(frame: Frame, secret: str) -> str:
    """Return what an ``ERROR`` frame says, on one line, without the secret."""
    body = frame.body.decode(errors="replace")
    text = " ".join(f"{frame.headers.get('message', '')}: {body}".split())
    if secret:
        text = text.replace(secret, "***")
    return text[:_LONGEST_QUOTE].strip(": ")


def broker_said(where: str, frame: Frame, secret: str) -> str:
    """The broker sent an ``ERROR`` frame."""
    return f"{where}: the broker reports an error ({quoted(frame, secret)}); connect again"


def closed(where: str, error: Exception) -> str:
    """The WebSocket is closed, by a closing frame or without."""
    if isinstance(error, ConnectionClosed):
        if error.sent is not None and error.sent.code == _TOO_BIG:
            return (
                f"{where}: a message is larger than any that RabbitMQ sends by default; "
                "purge the queue or lower max_message_size of the broker"
            )
        if error.rcvd is not None:
            said = f"{error.rcvd.code} {error.rcvd.reason}".strip()
            return f"{where}: the broker closed the connection ({said}); connect again"
    return f"{where}: the connection broke ({error}); connect again"


def silent(where: str, seconds: float) -> str:
    """Nothing came from the broker for so long."""
    return f"{where}: nothing heard for {seconds:g} s, not even a heart-beat; connect again"


def not_stomp(where: str, error: Exception) -> str:
    """The broker sent what cannot be understood."""
    return f"{where}: what came is not STOMP ({error}); check the path and the proxies between"


def queue_refused(reason: str, queues: Iterable[str]) -> str:
    """The broker ended the session when it was asked for these queues."""
    names = ", ".join(sorted(queues)) or "none"
    return (
        f"{reason}; no subscription to {names}: it does not exist, has other properties, or may "
        "not be read; register with Waldur again"
    )


_TOO_BIG = 1009
