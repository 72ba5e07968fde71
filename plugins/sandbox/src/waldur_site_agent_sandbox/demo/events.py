"""The demo's last scene: an event on its way from Waldur over RabbitMQ to the cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from waldur_site_agent.service.modes import EVENT_PROCESS
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import Runtime
from waldur_site_agent.service.worker import OnEvents, Worker
from waldur_site_agent_sandbox import Sandbox

PORT_VARIABLE = "DEMO_BROKER_PORT"
"""The first of the ports of a RabbitMQ as tests/services/rabbitmq/up.sh makes it."""
REASON_VARIABLE = "DEMO_BROKER_REASON"
_MANAGEMENT, _STOMP, STOMP_OVER_WEBSOCKET = 1, 2, 3
_ADMIN = "waldur"
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class DemoBroker:
    """A RabbitMQ of the demo's own, on this machine."""

    port: int

    @classmethod
    def from_environment(cls) -> DemoBroker | None:
        """The broker that was started for the demo, if one was."""
        text = os.environ.get(PORT_VARIABLE, "")
        return cls(int(text)) if text.isdecimal() else None

    def attach(self, sandbox: Sandbox) -> None:
        """Let the sandbox publish to it."""
        url = f"http://127.0.0.1:{self.port + _MANAGEMENT}"
        sandbox.attach_broker(url, _ADMIN, _ADMIN, stomp_port=self.port + _STOMP)


def why_no_broker() -> str:
    """Why there are no events to show, and what would change that."""
    reason = os.environ.get(REASON_VARIABLE) or "no RabbitMQ was started for the demo"
    return f"{reason}; as root on a Debian-like machine, make demo installs and starts one"


def play_events(
    runtime: Runtime,
    changes: list[tuple[str, Callable[[], object], Callable[[], bool]]],
) -> bool:
    """Make each change in Waldur and wait until the cluster shows it; say how long that took.

    Args:
        runtime: a configuration whose offering follows events.
        changes: what people do: a line to print, the change, and how to see it in the cluster.

    Returns:
        Whether every change arrived.
    """
    with _listening(runtime) as events:
        if not _wait(lambda: events.status.connection.connected_since is not None):
            trouble = events.status.connection.trouble
            click.echo(f"The agent could not subscribe to events: {trouble}")
            return False
        _wait(lambda: events.status.scopes_waiting == 0)
        for line, change, has_arrived in changes:
            began = time.monotonic()
            change()
            arrived = _wait(has_arrived)
            took = f"{time.monotonic() - began:.2f} s later" if arrived else "never"
            click.echo(f"{line}: in the cluster {took}")
            if not arrived:
                return False
    return True


@contextmanager
def _listening(runtime: Runtime) -> Iterator[OnEvents]:
    """An agent that reacts to events while the body runs."""
    stop = Stop()
    offering = runtime.configuration.offerings[0]
    events = OnEvents(runtime, offering, EVENT_PROCESS, stop)
    worker = Worker(runtime, offering, EVENT_PROCESS, stop, events)
    thread = threading.Thread(target=worker.run, name="event_process", daemon=True)
    thread.start()
    try:
        yield events
    finally:
        stop.request()
        thread.join(_PATIENCE_SECONDS)


def _wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
