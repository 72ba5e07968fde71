"""The demo with deposits: orders, charges and members on a simulated MOAB."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import click

from waldur_site_agent.backends import Backend, BackendSettings
from waldur_site_agent.cli.start import give_up
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.service.session import MEMBERSHIP_SYNC, ORDER_PROCESS, REPORT
from waldur_site_agent_sandbox import Order, Project, Sandbox
from waldur_site_agent_sandbox.demo.stage import Cluster, Stage, print_title, show

try:
    from waldur_site_agent_moab.backend import MoabBackend
    from waldur_site_agent_moab.simulator import SimulatedMam
except ImportError as missing:
    give_up(
        f"this demo needs the MOAB plugin, which is not installed ({missing}); "
        "in a checkout: pip install . ./plugins/sandbox ./plugins/slurm ./plugins/moab"
    )


def demo_moab(*, keep: bool) -> int:
    """Show an order turning into a deposit, and jobs that are charged; return the exit code."""
    mam = SimulatedMam()
    cluster = Cluster(
        backend="moab",
        title="MOAB",
        offering="Example accounting",
        simulated=_simulated_backend(mam),
        settings={
            "default_account": "root",
            "customer_prefix": "c_",
            "project_prefix": "p_",
            "allocation_prefix": "hpc_",
            "enable_user_homedir_account_creation": False,
        },
        components={
            "deposit": {"label": "Deposit", "measured_unit": "EUR", "accounting_type": "limit"}
        },
    )
    return show(cluster, lambda stage: _play(stage, mam), keep=keep)


def _play(stage: Stage, mam: SimulatedMam) -> None:
    side = stage.sandbox.customer
    climate, order = _fill(stage.sandbox)
    print_title(f"Waldur's sandbox at {stage.url} and a simulated MOAB: an order of 500 EUR waits.")
    stage.cycle(ORDER_PROCESS, dry_run=True)
    print_title("One cycle.                                         (waldur_site_agent --once)")
    stage.cycle(ORDER_PROCESS)
    stage.print_tree()

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
    stage.print_tree()


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


def _simulated_backend(mam: SimulatedMam) -> type[Backend]:
    class SimulatedBackend(MoabBackend):
        """The MOAB plugin on the simulator."""

        def __init__(self, settings: BackendSettings, components: Mapping[str, Component]) -> None:
            super().__init__(settings, components, runner=mam.runner())

    return SimulatedBackend
