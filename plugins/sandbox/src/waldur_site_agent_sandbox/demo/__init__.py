"""The demo: an embedded Waldur, a simulated (or real) Slurm, and the agent between them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from waldur_site_agent.backends import (
    Backend,
    BackendResource,
    BackendSettings,
    BackendState,
)
from waldur_site_agent.backends.plugins import Registry
from waldur_site_agent.cli.plan import report_text, step_changes
from waldur_site_agent.cli.start import DONE, FAILED, give_up
from waldur_site_agent.config import load_configuration
from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent.cycles.order_inputs import OrdersReport
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.service.logs import configure_logs
from waldur_site_agent.service.modes import MEMBERSHIP_SYNC, ORDER_PROCESS, REPORT, Mode
from waldur_site_agent.service.session import Runtime
from waldur_site_agent.service.worker import once
from waldur_site_agent_sandbox import Order
from waldur_site_agent_sandbox.demo.events import (
    STOMP_OVER_WEBSOCKET,
    DemoBroker,
    play_events,
    why_no_broker,
)
from waldur_site_agent_sandbox.demo.text import (
    print_plan,
    print_title,
    print_what_is_next,
    tree_text,
)

try:
    from waldur_site_agent_sandbox import Sandbox
    from waldur_site_agent_slurm.backend import SlurmBackend
    from waldur_site_agent_slurm.simulator import SimulatedSlurm
except ImportError as missing:
    give_up(
        f"the demo needs the Slurm plugin, which is not installed ({missing}); "
        "in a checkout: pip install . ./plugins/sandbox ./plugins/slurm"
    )


_CONFIGURATION = """\
timezone: UTC
offerings:
  - name: Example cluster
    waldur_api_url: {url}
    waldur_api_token_file: token
    waldur_offering_uuid: {uuid}
    order_processing_backend: slurm
    membership_sync_backend: slurm
    reporting_backend: slurm
    backend_settings:
      customer_prefix: c_
      project_prefix: p_
      allocation_prefix: hpc_
      qos_downscaled: limited
      qos_paused: paused
      enable_user_homedir_account_creation: false
      require_system_user: false
      lock_file: {directory}/writer.lock
    backend_components:
      cpu: {{label: CPU, measured_unit: k-Hours, unit_factor: 60000, accounting_type: limit}}
      mem: {{label: RAM, measured_unit: GB-hours, unit_factor: 61440, accounting_type: limit}}
      gres/gpu:
        label: GPU
        measured_unit: GPU-hours
        unit_factor: 60
        accounting_type: usage
        limit: 500
"""


_NO_USAGE = """\
Not shown on a real Slurm: there, usage is what jobs have used that ran for hours, and in this
cluster none has. "make demo" without SLURM=real shows it with simulated jobs."""


def demo(*, keep: bool) -> int:
    """Show orders turning into accounts; return the exit code."""
    real = os.environ.get("SLURM", "") == "real"
    configure_logs("warning", "console")
    sandbox = Sandbox()
    with sandbox.serve() as url, tempfile.TemporaryDirectory() as directory:
        slurm = None if real else SimulatedSlurm()
        stage = Stage(sandbox, _situation(sandbox, url, Path(directory), slurm))
        ocean = _play(stage, url, "a real Slurm" if real else "a simulated Slurm")
        if slurm is not None:
            _play_usage(stage, slurm, ocean)
        else:
            print_title("Jobs ran. What is to be billed?                     (-m report)")
            click.echo(_NO_USAGE)
        _play_events(stage, ocean)
        print_what_is_next()
        if keep:
            click.pause(f"\nThe sandbox stays at {url} until you press a key.")
    return FAILED if stage.failed else DONE


def _play(stage: Stage, url: str, slurm: str) -> Order:
    sandbox = stage.sandbox
    world = sandbox.fill_demo()
    ocean, tokamak = world.orders
    print_title(f"Waldur's sandbox at {url} and {slurm}: two projects, five people")
    click.echo(stage.tree())

    print_title("Two orders wait. What would the agent do?   (waldur_site_agent --dry-run)")
    stage.cycle(ORDER_PROCESS, dry_run=True)
    print_title("One cycle.                                  (waldur_site_agent --once)")
    stage.cycle(ORDER_PROCESS)
    click.echo(stage.tree())

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
    click.echo(stage.tree())
    return ocean


def _play_usage(stage: Stage, slurm: SimulatedSlurm, order: Order) -> None:
    """Let some jobs have run, as if the resource were a week old, and report them."""
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
    """Let people come and go while the agent listens."""
    print_title("Now the agent listens.                          (-m event_process)")
    broker = DemoBroker.from_environment()
    if broker is None:
        click.echo(f"Not shown: {why_no_broker()}.")
        return
    sandbox, side = stage.sandbox, stage.sandbox.customer
    broker.attach(sandbox)
    ocean = side.resource_of(order)
    climate = side.world.projects[ocean.project]
    changes = [
        (
            "Alan is back in climate",
            lambda: side.add_member(climate, "alan"),
            lambda: "alan" in stage.found(ocean.backend_id).members,
        ),
        (
            "The resource is paused no longer",
            lambda: side.set_flags(ocean, paused=False),
            lambda: stage.found(ocean.backend_id).metadata.get("qos") != "paused",
        ),
    ]
    stage.failed |= not play_events(stage.following_events(broker), changes)


class Stage:
    """The sandbox, a backend and the agent between them, shown cycle by cycle."""

    def __init__(
        self, sandbox: Sandbox, runtime: Runtime, backend: str = "slurm", title: str = "Slurm"
    ) -> None:
        """``backend`` is its entry-point name, ``title`` what its commands are called."""
        self.sandbox = sandbox
        self.failed = False
        self._situation = runtime
        self._backend = backend
        self._title = title
        self._offerings = runtime.configuration.offerings
        self._components = self._offerings[0].components

    def cycle(self, mode: Mode, *, dry_run: bool = False, quiet: bool = False) -> None:
        """One cycle of the agent, with what it took."""
        self.sandbox.requests.clear()
        report = once(self._situation, self._offerings[0], mode, dry_run=dry_run)[0]
        self.failed |= report.failed
        if quiet:
            return
        if dry_run:
            print_plan(report_text(report), self._components)
            return
        requests = self.sandbox.requests.count()
        took = f"{requests} requests to Waldur, {report.commands} {self._title} commands"
        print_plan("\n".join([*_done(report), took]), self._components)

    def following_events(self, broker: DemoBroker) -> Runtime:
        """The same site, whose offering follows events."""
        configuration = self._situation.configuration
        switched = {
            "stomp_enabled": True,
            "websocket_use_tls": False,
            "stomp_ws_host": "127.0.0.1",
            "stomp_ws_port": broker.port + STOMP_OVER_WEBSOCKET,
        }
        offering = configuration.offerings[0].model_copy(update=switched)
        changed = configuration.model_copy(update={"offerings": (offering,)})
        return replace(self._situation, configuration=changed)

    def found(self, account: str) -> BackendResource:
        """An account as the backend reads it."""
        return self._observe().resources[account]

    def tree(self) -> str:
        """The cluster's accounts as the backend reads them."""
        return tree_text(self._observe(), self._components, self._title)

    def _observe(self) -> BackendState:
        registry, offering = self._situation.registry, self._offerings[0]
        settings = registry.settings(self._backend, offering, None)
        return registry.open(self._backend, settings, offering).observe()


def _done(report: CycleReport) -> list[str]:
    match report:
        case OrdersReport(results=results):
            lines = [
                f"{f.order.type} order of {f.order.resource_name}: {f.status.value} {f.reason}"
                for f in results
            ]
            return [line.rstrip() for line in lines] or ["No orders."]
        case MembershipReport(membership=membership):
            changes = [c for step in membership.plan.steps for c in step_changes(step)]
            return [f"{sign} {subject}" for sign, subject, _ in changes] or ["No changes."]
        case UsageCycleReport(months=months):
            reported = [
                f"{resource.account} in {month.plan.month}: "
                + ", ".join(f"{kind} {amount}" for kind, amount in resource.totals.items())
                for month in months
                for resource in month.plan.resources
                if resource.account in month.reported
            ]
            return reported or ["Nothing new to report."]
        case _:
            return [report.trouble]


def _situation(
    sandbox: Sandbox, url: str, directory: Path, slurm: SimulatedSlurm | None
) -> Runtime:
    (directory / "token").write_text(sandbox.token, encoding="utf-8")
    path = directory / "waldur-site-agent-config.yaml"
    uuid = sandbox.offering.uuid
    path.write_text(
        _CONFIGURATION.format(url=url, uuid=uuid, directory=directory), encoding="utf-8"
    )
    configuration, source = load_configuration(path)
    registry = Registry({"slurm": _simulated_backend(slurm)} if slurm else None)
    return Runtime(configuration=configuration, source=source, registry=registry)


def _simulated_backend(slurm: SimulatedSlurm) -> type[Backend]:
    runner = slurm.runner()

    class SimulatedBackend(SlurmBackend):
        """The Slurm plugin, whose commands go to the simulator."""

        def __init__(self, settings: BackendSettings, components: Mapping[str, Component]) -> None:
            super().__init__(settings, components, runner=runner)

    return SimulatedBackend
