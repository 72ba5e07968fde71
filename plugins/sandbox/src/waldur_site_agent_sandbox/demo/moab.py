"""The demo with deposits: an embedded Waldur, a simulated MOAB, and the agent between them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click

from waldur_site_agent.backends import Backend, BackendSettings
from waldur_site_agent.backends.plugins import Registry
from waldur_site_agent.cli.start import DONE, FAILED, give_up
from waldur_site_agent.config import load_configuration
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.service.logs import configure_logs
from waldur_site_agent.service.modes import MEMBERSHIP_SYNC, ORDER_PROCESS, REPORT
from waldur_site_agent.service.session import Runtime
from waldur_site_agent_sandbox import Order, Project
from waldur_site_agent_sandbox.demo import Stage
from waldur_site_agent_sandbox.demo.text import print_title, print_what_is_next

try:
    from waldur_site_agent_moab.backend import MoabBackend
    from waldur_site_agent_moab.simulator import SimulatedMam
    from waldur_site_agent_sandbox import Sandbox
except ImportError as missing:
    give_up(
        f"this demo needs the MOAB plugin, which is not installed ({missing}); "
        "in a checkout: pip install . ./plugins/sandbox ./plugins/slurm ./plugins/moab"
    )


_CONFIGURATION = """\
timezone: UTC
offerings:
  - name: Example accounting
    waldur_api_url: {url}
    waldur_api_token_file: token
    waldur_offering_uuid: {uuid}
    order_processing_backend: moab
    membership_sync_backend: moab
    reporting_backend: moab
    backend_settings:
      default_account: root
      customer_prefix: c_
      project_prefix: p_
      allocation_prefix: hpc_
      enable_user_homedir_account_creation: false
      lock_file: {directory}/writer.lock
    backend_components:
      deposit: {{label: Deposit, measured_unit: EUR, accounting_type: limit}}
"""


def demo_moab(*, keep: bool) -> int:
    """Show an order turning into a deposit, and jobs that are charged; return the exit code."""
    configure_logs("warning", "console")
    sandbox, mam = Sandbox(), SimulatedMam()
    with sandbox.serve() as url, tempfile.TemporaryDirectory() as directory:
        runtime = _situation(sandbox, mam, url, Path(directory))
        stage = Stage(sandbox, runtime, "moab", "MOAB")
        _play(stage, mam, url)
        print_what_is_next()
        if keep:
            click.pause(f"\nThe sandbox stays at {url} until you press a key.")
    return FAILED if stage.failed else DONE


def _play(stage: Stage, mam: SimulatedMam, url: str) -> None:
    side = stage.sandbox.customer
    climate, order = _fill(stage.sandbox)
    print_title(f"Waldur's sandbox at {url} and a simulated MOAB: an order of 500 EUR waits.")
    stage.cycle(ORDER_PROCESS, dry_run=True)
    print_title("One cycle.                                         (waldur_site_agent --once)")
    stage.cycle(ORDER_PROCESS)
    click.echo(stage.tree())

    resource = side.resource_of(order)
    now = datetime.now(UTC) + timedelta(seconds=1)
    mam.charge(resource.backend_id, "ada", Decimal("120.50"), now, now)
    mam.charge(resource.backend_id, "grace", Decimal("29.75"), now, now)
    print_title("Jobs cost 150.25 EUR. What would Waldur be told?   (-m report --dry-run)")
    stage.cycle(REPORT, dry_run=True)
    stage.cycle(REPORT, quiet=True)

    side.place_update_order(resource, {"deposit": 800})
    print_title("Climate tops up to 800 EUR: only the difference is deposited.    (--once, twice)")
    stage.cycle(ORDER_PROCESS)
    stage.cycle(ORDER_PROCESS)
    click.echo(_money(mam, resource.backend_id))
    side.place_update_order(resource, {"deposit": 300})
    print_title("Climate gives back all but 300 EUR.                              (--once)")
    stage.cycle(ORDER_PROCESS)
    click.echo(_money(mam, resource.backend_id))

    stage.cycle(MEMBERSHIP_SYNC, quiet=True)
    side.add_member(climate, "emmy")
    side.remove_member(climate, "grace")
    print_title("Emmy joins, Grace leaves.                   (-m membership_sync --once, twice)")
    stage.cycle(MEMBERSHIP_SYNC)
    stage.cycle(MEMBERSHIP_SYNC)
    click.echo(stage.tree())


def _fill(sandbox: Sandbox) -> tuple[Project, Order]:
    side = sandbox.customer
    side.add_component("deposit", "limit", "EUR", name="Deposit")
    university = side.add_customer("University of Example", "uni")
    climate = side.add_project("Climate model", university, "climate")
    for username in ("ada", "grace", "emmy"):
        person = side.add_user(username, f"{username.title()} Example")
        side.set_account(person)
        if username != "emmy":
            side.add_member(climate, person)
    return climate, side.place_create_order(climate, "Ocean runs", {"deposit": 500})


def _money(mam: SimulatedMam, account: str) -> str:
    left, used = mam.state.left_of(account), mam.state.used_of(account)
    return f"{account}: {left:.2f} left + {used:.2f} used = {left + used:.2f}"


def _situation(sandbox: Sandbox, mam: SimulatedMam, url: str, directory: Path) -> Runtime:
    (directory / "token").write_text(sandbox.token, encoding="utf-8")
    path = directory / "waldur-site-agent-config.yaml"
    uuid = sandbox.offering.uuid
    path.write_text(
        _CONFIGURATION.format(url=url, uuid=uuid, directory=directory), encoding="utf-8"
    )
    configuration, source = load_configuration(path)
    registry = Registry({"moab": _simulated_backend(mam)})
    return Runtime(configuration=configuration, source=source, registry=registry)


def _simulated_backend(mam: SimulatedMam) -> type[Backend]:
    class SimulatedBackend(MoabBackend):
        """The MOAB plugin, whose commands go to the simulator."""

        def __init__(self, settings: BackendSettings, components: Mapping[str, Component]) -> None:
            super().__init__(settings, components, runner=mam.runner())

    return SimulatedBackend
