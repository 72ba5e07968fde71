"""Real jobs on a real Slurm, reported by the agent's own command, against slurmdbd's own tables."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import Installation, SimulatedSite
from integration.slurm.accounting_database import AccountingDatabase
from waldur_site_agent_sandbox import Resource

if TYPE_CHECKING:
    from integration.conftest import RealSlurm

pytestmark = pytest.mark.slurm

TRES = ("cpu", "mem")
_MINUTES = {
    name: {"label": name, "measured_unit": "min", "unit_factor": 1, "accounting_type": "limit"}
    for name in TRES
}


@pytest.fixture
def site(
    real_slurm: RealSlurm, prefix: str, testbed: SimulatedSite, tmp_path: Path
) -> Installation:
    """The agent's commands between a sandbox and a real cluster; units are minutes."""
    settings = {
        "customer_prefix": f"{prefix}c_",
        "project_prefix": f"{prefix}p_",
        "allocation_prefix": f"{prefix}a_",
    }
    environment = {"SLURM_CONF": str(real_slurm.slurm_conf)}
    installation = Installation(testbed, tmp_path, settings, environment)
    changes: dict[str, Any] = {"reporting_backend": "slurm", "backend_components": _MINUTES}
    installation.write_offerings(changes, timezone="UTC")
    return installation


@pytest.mark.guarantee("Usage of a month is what the accounting database holds for it")
def test_an_array_a_requeue_and_a_suspend_are_billed_to_the_cent(
    real_slurm: RealSlurm, site: Installation
) -> None:
    ada, bob, cyd = real_slurm.users[:3]
    resource = ordered(site, ada=ada, bob=bob, cyd=cyd)
    account = resource.backend_id
    real_slurm.submit(ada, account, "-c", "2", "--array=0-2", "--wrap", "sleep 3")
    again = real_slurm.submit(bob, account, "-n", "3", "--requeue", "--wrap", "sleep 590")
    stopped = real_slurm.submit(cyd, account, "-n", "2", "--mem=300", "--wrap", "sleep 590")
    wait_for(real_slurm, account, {"RUNNING", "COMPLETED"}, 5)
    # a job that is suspended or requeued in its first second has used nothing
    real_slurm.wait_until(lambda: min(seconds(real_slurm, again, stopped)) >= 2)
    real_slurm.run("scontrol", "suspend", stopped)
    real_slurm.run("scontrol", "requeue", again)
    wait_for(real_slurm, account, {"COMPLETED"}, 3)
    running = site.run("-m", "report", "--once")
    assert running.code == 0, running.err
    part_way = billed(site, resource)
    real_slurm.run("scontrol", "resume", stopped)
    real_slurm.run("scancel", again, stopped)
    real_slurm.wait_until(lambda: not {"RUNNING", "SUSPENDED"} & {*states(real_slurm, account)})

    last = site.run("-m", "report", "--once")
    assert last.code == 0, last.err
    expected = AccountingDatabase(real_slurm).used(account, 0, 2**31, TRES)
    assert expected.keys() == {ada, bob, cyd}
    totals = billed(site, resource)
    parts = site.testbed.sandbox.customer.user_usages(resource)
    for name in TRES:
        exact = Fraction(sum(amounts[name] for amounts in expected.values()), 60)
        assert totals[name] == Decimal(round(exact * 100)).scaleb(-2)
        assert sum(part[name] for part in parts.values()) == totals[name]
        for user, amounts in expected.items():
            assert abs(Fraction(parts[user][name]) - Fraction(amounts[name], 60)) < Fraction(1, 100)
        assert 0 < part_way[name] <= totals[name]

    site.testbed.forget()
    assert site.run("-m", "report", "--once").code == 0
    assert site.testbed.sandbox.requests.writes() == []


@pytest.mark.guarantee("usage: Checked against the real thing")
def test_node_hours_of_cores_and_gpus_are_limited_and_billed_exactly(
    real_slurm: RealSlurm, site: Installation
) -> None:
    """Ada uses cores only and Bob all of the GPUs; the larger share of the node is billed."""
    ada, bob = real_slurm.users[:2]
    factors = {"cpu": Fraction(4), "gres/gpu": Fraction(1, 2)}
    node_hours = {
        "label": "Node-hours",
        "measured_unit": "node-hours",
        "accounting_type": "limit",
        "target_components": {n: {"factor": str(float(f))} for n, f in factors.items()},
    }
    components = {"node_hours": node_hours, "mem": _MINUTES["mem"]}
    site.write_offerings(
        {"reporting_backend": "slurm", "backend_components": components}, timezone="UTC"
    )
    loaded = site.run(command="waldur_site_load_components")
    assert loaded.code == 0, loaded.err
    order = site.testbed.order(
        site.testbed.project(ada=ada, bob=bob), "Ocean", node_hours=2001, mem=1000000
    )
    done = site.run("--once")
    assert done.code == 0, done.err
    resource = site.testbed.resource(order)
    (row,) = (
        row for row in real_slurm.associations(f"{resource.backend_id}|") if not row.split("|")[1]
    )
    assert set(row.split("|")[5].split(",")) == {"cpu=8004", "gres/gpu=1001", "mem=1000000M"}

    first = real_slurm.submit(ada, resource.backend_id, "-c", "6", "--wrap", "sleep 4")
    second = real_slurm.submit(bob, resource.backend_id, "--gres=gpu:3", "--wrap", "sleep 3")
    wait_for(real_slurm, resource.backend_id, {"COMPLETED"}, 2)
    assert min(seconds(real_slurm, first, second)) > 0
    last = site.run("-m", "report", "--once")
    assert last.code == 0, last.err
    found = AccountingDatabase(real_slurm).used(resource.backend_id, 0, 2**31, (*factors, "mem"))
    used = {n: Fraction(sum(each[n] for each in found.values()), 60) for n in factors}
    shares = {name: used[name] / factor for name, factor in factors.items()}
    assert min(shares.values()) > 0
    totals = billed(site, resource)
    assert totals["node_hours"] == Decimal(round(max(shares.values()) * 100)).scaleb(-2)
    assert set(totals) == {"node_hours", "mem"}
    parts = site.testbed.sandbox.customer.user_usages(resource)
    assert sum(part["node_hours"] for part in parts.values()) == totals["node_hours"]

    site.testbed.forget()
    assert site.run("-m", "report", "--once").code == 0
    assert site.testbed.sandbox.requests.writes() == []


def ordered(site: Installation, **people: str) -> Resource:
    """A resource whose account was made by the agent."""
    order = site.testbed.order(site.testbed.project(**people), "Ocean", cpu=1000, mem=1000000)
    done = site.run("--once")
    assert done.code == 0, done.err
    return site.testbed.resource(order)


def billed(site: Installation, resource: Resource) -> dict[str, Decimal]:
    return site.testbed.sandbox.customer.usages(resource)


def wait_for(real_slurm: RealSlurm, account: str, wanted: set[str], number: int) -> None:
    """Wait until slurmdbd has so many runs in one of the states."""
    real_slurm.wait_until(
        lambda: sum(state in wanted for state in states(real_slurm, account)) >= number
    )


def seconds(real_slurm: RealSlurm, *jobs: str) -> list[int]:
    asked = ("sacct", "-X", "-n", "-P", "-j", ",".join(jobs), "--format=ElapsedRaw")
    found = [int(row) for row in real_slurm.run(*asked).stdout.split()]
    assert len(found) == len(jobs)
    return found


def states(real_slurm: RealSlurm, account: str) -> list[str]:
    asked = ("sacct", "-X", "-D", "-n", "-P", "-A", account, "--format=State")
    return [row.split()[0] for row in real_slurm.run(*asked).stdout.splitlines()]
