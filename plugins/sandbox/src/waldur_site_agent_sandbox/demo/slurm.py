"""The demo with Slurm: orders, members, usage and events, on a simulated or a real cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import click

from waldur_site_agent.backends import Backend, BackendSettings
from waldur_site_agent.cli.start import give_up
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import (
    EVENT_PROCESS,
    MEMBERSHIP_SYNC,
    ORDER_PROCESS,
    REPORT,
    Runtime,
)
from waldur_site_agent.service.worker import OnEvents, Worker
from waldur_site_agent_sandbox import Order, Sandbox
from waldur_site_agent_sandbox.demo.stage import Cluster, Stage, print_title, show

try:
    from waldur_site_agent_slurm.backend import SlurmBackend
    from waldur_site_agent_slurm.simulator import SimulatedSlurm
except ImportError as missing:
    give_up(
        f"the demo needs the Slurm plugin, which is not installed ({missing}); "
        "in a checkout: pip install . ./plugins/sandbox ./plugins/slurm"
    )


def demo_slurm(*, keep: bool) -> int:
    """Show orders turning into accounts; return the exit code."""
    slurm = None if os.environ.get("SLURM", "") == "real" else SimulatedSlurm()

    def play(stage: Stage) -> None:
        name = "a simulated Slurm" if slurm else "a real Slurm"
        ocean = _play_orders_and_members(stage, name)
        if slurm:
            _play_usage(stage, slurm, ocean)
        else:
            print_title("Jobs ran. What is to be billed?                     (-m report)")
            click.echo(_NO_USAGE)
        _play_events(stage, ocean)

    return show(_cluster(slurm), play, keep=keep)


def _cluster(slurm: SimulatedSlurm | None) -> Cluster:
    return Cluster(
        backend="slurm",
        title="Slurm",
        offering="Example cluster",
        simulated=_simulated_backend(slurm) if slurm else None,
        settings={
            "customer_prefix": "c_",
            "project_prefix": "p_",
            "allocation_prefix": "hpc_",
            "qos_downscaled": "limited",
            "qos_paused": "paused",
            "enable_user_homedir_account_creation": False,
            "require_system_user": False,
        },
        components={
            "cpu": {
                "label": "CPU",
                "measured_unit": "k-Hours",
                "unit_factor": 60000,
                "accounting_type": "limit",
            },
            "mem": {
                "label": "RAM",
                "measured_unit": "GB-hours",
                "unit_factor": 61440,
                "accounting_type": "limit",
            },
            "gres/gpu": {
                "label": "GPU",
                "measured_unit": "GPU-hours",
                "unit_factor": 60,
                "accounting_type": "usage",
                "limit": 500,
            },
        },
    )


def _simulated_backend(slurm: SimulatedSlurm) -> type[Backend]:
    runner = slurm.runner()

    class SimulatedBackend(SlurmBackend):
        """The Slurm plugin on the simulator."""

        def __init__(self, settings: BackendSettings, components: Mapping[str, Component]) -> None:
            super().__init__(settings, components, runner=runner)

    return SimulatedBackend


_NO_USAGE = """\
Not shown on a real Slurm: there, usage is what jobs have used that ran for hours, and in this
cluster none has. "make demo" without SLURM=real shows it with simulated jobs."""


def _play_orders_and_members(stage: Stage, slurm: str) -> Order:
    sandbox = stage.sandbox
    world = sandbox.fill_demo()
    ocean, tokamak = world.orders
    print_title(f"Waldur's sandbox at {stage.url} and {slurm}: two projects, five people")
    stage.print_tree()

    print_title("Two orders wait. What would the agent do?   (waldur_site_agent --dry-run)")
    stage.cycle(ORDER_PROCESS, dry_run=True)
    print_title("One cycle.                                  (waldur_site_agent --once)")
    stage.cycle(ORDER_PROCESS)
    stage.print_tree()

    side = sandbox.customer
    side.place_update_order(side.resource_of(ocean), {"cpu": 720, "mem": 2000})
    side.place_terminate_order(side.resource_of(tokamak))
    print_title("Climate orders more CPU, physics gives its resource back.  (--dry-run)")
    stage.cycle(ORDER_PROCESS, dry_run=True)
    print_title("One more cycle, and one with nothing to do. (--once, twice)")
    stage.cycle(ORDER_PROCESS)
    stage.cycle(ORDER_PROCESS)

    stage.cycle(MEMBERSHIP_SYNC, quiet=True)
    side.add_member(world.climate, "emmy")
    side.remove_member(world.climate, "alan")
    side.set_flags(side.resource_of(ocean), paused=True)
    print_title(
        "Emmy joins climate, Alan leaves, the resource is paused.   (-m membership_sync --dry-run)"
    )
    stage.cycle(MEMBERSHIP_SYNC, dry_run=True)
    print_title("One cycle, and one with nothing to do.         (-m membership_sync --once, twice)")
    stage.cycle(MEMBERSHIP_SYNC)
    stage.cycle(MEMBERSHIP_SYNC)
    stage.print_tree()
    return ocean


def _play_usage(stage: Stage, slurm: SimulatedSlurm, order: Order) -> None:
    """Simulate jobs of a resource that is a week old, and report their usage."""
    side = stage.sandbox.customer
    now = datetime.now(UTC).replace(microsecond=0)
    ocean = replace(side.resource_of(order), created=now - timedelta(days=7))
    side.world.put(ocean)
    for user, cores, hours in (("ada", 512, 5), ("grace", 2048, 3), ("emmy", 1024, None)):
        start = now - timedelta(hours=6)
        end = None if hours is None else start + timedelta(hours=hours)
        tres = {"cpu": cores, "mem": cores * 2048, "gres/gpu": cores // 128}
        slurm.run_job(user, ocean.backend_id, tres, start, end)
    print_title("Jobs ran, one still does. What is to be billed?          (-m report --dry-run)")
    stage.cycle(REPORT, dry_run=True)
    print_title("One cycle, and one a moment later.                  (-m report --once, twice)")
    stage.cycle(REPORT)
    stage.cycle(REPORT)
    click.echo("By user, as Waldur has it now:")
    for name, amounts in sorted(side.user_usages(ocean).items()):
        figures = "  ".join(f"{kind} {amount:.2f}" for kind, amount in sorted(amounts.items()))
        click.echo(f"  {name:<8} {figures}")


def _play_events(stage: Stage, order: Order) -> None:
    """Change memberships and flags while the agent listens."""
    print_title("Now the agent listens.                          (-m event_process)")
    broker = _Broker.from_environment()
    if broker is None:
        click.echo(f"Not shown: {_why_no_broker()}.")
        return
    sandbox, side = stage.sandbox, stage.sandbox.customer
    broker.attach(sandbox)
    ocean = side.resource_of(order)
    climate = side.world.projects[ocean.project]
    changes = [
        (
            "Alan is back in climate",
            lambda: side.add_member(climate, "alan"),
            lambda: "alan" in stage.account(ocean.backend_id).members,
        ),
        (
            "The resource is paused no longer",
            lambda: side.set_flags(ocean, paused=False),
            lambda: stage.account(ocean.backend_id).metadata.get("qos") != "paused",
        ),
    ]
    stage.failed |= not _follow_events(broker.runtime(stage.runtime), changes)


_PORT_VARIABLE = "DEMO_BROKER_PORT"
"""The first of the ports of a RabbitMQ as tests/services/rabbitmq/up.sh makes it."""
_REASON_VARIABLE = "DEMO_BROKER_REASON"
_MANAGEMENT, _STOMP, _STOMP_OVER_WEBSOCKET = 1, 2, 3
_ADMIN = "waldur"
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Broker:
    """A RabbitMQ of the demo's own, on this machine."""

    port: int

    @classmethod
    def from_environment(cls) -> _Broker | None:
        """The broker that was started for the demo, if one was."""
        text = os.environ.get(_PORT_VARIABLE, "")
        return cls(int(text)) if text.isdecimal() else None

    def attach(self, sandbox: Sandbox) -> None:
        """Make the sandbox publish to it."""
        url = f"http://127.0.0.1:{self.port + _MANAGEMENT}"
        sandbox.attach_broker(url, _ADMIN, _ADMIN, stomp_port=self.port + _STOMP)

    def runtime(self, runtime: Runtime) -> Runtime:
        """Give the same site, with an offering that follows events."""
        switched = {
            "stomp_enabled": True,
            "websocket_use_tls": False,
            "stomp_ws_host": "127.0.0.1",
            "stomp_ws_port": self.port + _STOMP_OVER_WEBSOCKET,
        }
        offering = runtime.configuration.offerings[0].model_copy(update=switched)
        changed = runtime.configuration.model_copy(update={"offerings": (offering,)})
        return replace(runtime, configuration=changed)


def _why_no_broker() -> str:
    """Explain why there are no events to show, and what to do about it."""
    reason = os.environ.get(_REASON_VARIABLE) or "no RabbitMQ was started for the demo"
    return f"{reason}; as root on a Debian-like machine, make demo installs and starts one"


def _follow_events(
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
