"""One pass over a generated site; ``python -m bench.passes MODE RESOURCES`` prints its cost."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from pwd import struct_passwd
from unittest.mock import patch
from uuid import UUID

import structlog

from bench.generated import OFFERING, GeneratedSlurm, GeneratedWaldur
from bench.startup import peak_mebibytes
from waldur_site_agent.cli.entry import collect_garbage_seldom
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import CycleReport, Site
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.events.pending import EventQueue
from waldur_site_agent.model.backend import ProjectScope
from waldur_site_agent.model.marketplace import backend_components
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings

URL = "http://waldur.invalid/api/"
TOKEN = "0" * 40
ORDERS = 30
REFUSED_EVERY = 15


@dataclass(frozen=True, slots=True)
class Mode:
    """A pass to measure; without orders it has nothing to change."""

    run: Callable[[Site], CycleReport]
    orders: int = 0
    refused_every: int = 0
    """slurmdbd refuses each command of this number; 0: none."""
    makes_homes: bool = False
    """Whether members get home directories; the pass is the second, as the first sees each home."""


MODES = {
    "order_process": Mode(process_orders),
    f"{ORDERS} create orders": Mode(process_orders, ORDERS),
    "same, 1/15 fails": Mode(process_orders, ORDERS, REFUSED_EVERY),
    "membership_sync": Mode(sync_membership),
    "same, with homes": Mode(sync_membership, makes_homes=True),
    "report": Mode(report_usage),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pass took. Seconds include the making of the answers, in the same process."""

    mode: str
    resources: int
    requests: int
    commands: int
    cpu_seconds: float
    wall_seconds: float
    peak_mebibytes: float
    lookups: int = 0
    """How often the operating system was asked for a user; each look at a home begins so."""


def measure(mode: str, resources: int) -> Cost:
    """Run one pass in this process.

    Raises:
        RuntimeError: it failed, or changed anything else than it should.
    """
    chosen = MODES[mode]
    orders = chosen.orders
    waldur, slurm = GeneratedWaldur(resources, orders), GeneratedSlurm(resources)
    slurm.refused_every = chosen.refused_every
    lookups: list[str] = []
    with (
        site_of(waldur, slurm, makes_homes=chosen.makes_homes) as site,
        patch("pwd.getpwnam", partial(_user, lookups)),
    ):
        if chosen.makes_homes:
            chosen.run(site)
            for counted in (waldur.requests, slurm.commands, lookups):
                counted.clear()
        cpu, wall = time.process_time(), time.monotonic()
        report = chosen.run(site)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    writes = sum(n for name, n in waldur.requests.items() if not name.startswith("GET "))
    wanted = 2 * orders  # the name of each resource, and the order is done
    if report.failed or writes != wanted or bool(slurm.commands["sacctmgr write"]) != bool(orders):
        raise RuntimeError(f"{mode}: {wanted} writes expected: {report.trouble} {waldur.requests}")
    counts = sum(waldur.requests.values()), sum(slurm.commands.values())
    peak = peak_mebibytes(os.getpid())
    return Cost(mode, resources, *counts, cpu, wall, peak, len(lookups))


def _user(lookups: list[str], name: str) -> struct_passwd:
    lookups.append(name)
    return struct_passwd((name, "x", 1000, 1000, "", "/nonexistent", "/bin/sh"))


def events_per_second(events: int = 20_000) -> float:
    """How many scopes a queue takes in and gives out for passes in a second."""
    queue = EventQueue(UUID(OFFERING), [], structlog.get_logger())
    began = time.monotonic()
    for number in range(events):
        queue.want(ProjectScope(UUID(int=number)))
    taken = 0
    while (batch := queue.take(0)) is not None:
        taken += len(batch.entries)
    if taken != events:
        raise RuntimeError(f"{taken} of {events} events came out of the queue")
    return events / (time.monotonic() - began)


@contextmanager
def site_of(waldur: GeneratedWaldur, slurm: GeneratedSlurm, *, makes_homes: bool) -> Iterator[Site]:
    """The site as an agent sees it."""
    offering = Offering.model_validate(
        {
            "name": "Bench",
            "waldur_api_url": URL,
            "waldur_api_token": TOKEN,
            "waldur_offering_uuid": OFFERING,
            "backend_type": "slurm",
            "backend_settings": {
                "customer_prefix": "c_",
                "project_prefix": "p_",
                "allocation_prefix": "a_",
                "qos_paused": "paused",
                "enable_user_homedir_account_creation": makes_homes,
                "require_system_user": makes_homes,
            },
            "backend_components": {
                "cpu": {
                    "measured_unit": "k-Hours",
                    "unit_factor": 60000,
                    "accounting_type": "limit",
                    "label": "CPU",
                }
            },
        }
    )
    with tempfile.TemporaryDirectory() as directory:
        settings = SlurmSettings.model_validate(
            {**offering.backend_settings, "lock_file": Path(directory) / "lock"}
        )
        backend = SlurmBackend(settings, backend_components(offering.components), runner=slurm)
        backend.pause_with(time.sleep)
        with Waldur(URL, TOKEN, mode="bench", verify=False, transport=waldur) as connection:
            yield Site(
                offering=offering,
                waldur=connection,
                backend=backend,
                thresholds=Thresholds(
                    max_removals_percent=Decimal(30), max_removals=10, removals_allowed=False
                ),
                log=structlog.get_logger(),
            )


def main() -> None:
    """Measure what the command line says, and print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    collect_garbage_seldom()
    print(json.dumps(asdict(measure(sys.argv[1], int(sys.argv[2])))))


if __name__ == "__main__":
    main()
