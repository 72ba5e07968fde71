"""A project that moves twice and comes back, on a real Slurm, with jobs and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import SlurmSite
    from waldur_site_agent_sandbox import Resource

pytestmark = pytest.mark.slurm


def parents(site: SlurmSite) -> dict[str, str]:
    """The account above each account, without the prefix of the test."""
    rows = (row.split("|") for row in site.slurm.associations(site.prefix))
    return {
        row[0].removeprefix(site.prefix): row[2].removeprefix(site.prefix)
        for row in rows
        if not row[1]
    }


def reason_of_a_job(site: SlurmSite, resource: Resource) -> str:
    """Why a new job of an account waits."""
    account = resource.backend_id
    words = ("-A", account, "-c2", "-t", "10", "-D", "/", "--wrap", "sleep 300")
    number = site.slurm.sbatch("--parsable", *words, user=site.bob).stdout.strip()

    def reason() -> str:
        return str(site.slurm.run("squeue", "-h", "-j", number, "-o", "%r").stdout.strip())

    # the node is away for a moment after a reconfiguration
    undecided = ("", "None", "Priority")
    site.slurm.wait_until(
        lambda: reason() not in undecided and not reason().startswith("ReqNodeNotAvail")
    )
    found = reason()
    site.slurm.run("scancel", number)
    return found


@pytest.mark.guarantee("moves: What happens")
def test_a_project_moves_twice_and_comes_back(slurm_site: SlurmSite) -> None:
    ((project, resource),) = slurm_site.open_projects("ocean")
    slurm_site.testbed.order(project, "second", cpu=5)
    slurm_site.site.run("-m", "order_process", "--once")
    slurm_site.sync()
    rows = slurm_site.slurm.associations(slurm_site.prefix)
    job = slurm_site.slurm.submit_job(slurm_site.ada, resource.backend_id)
    side = slurm_site.side
    side.add_customer("Laboratory", "lab")
    side.add_customer("Institute", "inst")
    resources = [name for name, parent in parents(slurm_site).items() if parent == "p_ocean"]
    assert len(resources) == 2
    for customer in ("lab", "inst", "uni"):
        side.move_project(project, customer)
        assert f"-> {slurm_site.prefix}c_{customer}" in slurm_site.sync("--dry-run")
        slurm_site.sync()
        found = parents(slurm_site)
        assert found["p_ocean"] == f"c_{customer}"
        assert [name for name in found if found[name] == "p_ocean"] == resources
        assert slurm_site.account(resource).users == {slurm_site.ada, slurm_site.bob}
        assert slurm_site.slurm.jobs(resource.backend_id), f"job {job} has ended"
        assert "action applied" not in slurm_site.sync()
    left = slurm_site.slurm.associations(slurm_site.prefix)
    assert [row for row in left if "c_lab" not in row and "c_inst" not in row] == rows


@pytest.mark.guarantee("moves: What happens")
def test_limits_hold_after_a_move_and_the_old_customers_account_can_be_removed(
    slurm_site: SlurmSite,
) -> None:
    ((project, resource),) = slurm_site.open_projects("ocean")
    slurm_site.set(resource, "GrpTRES=cpu=1")
    slurm_site.side.add_customer("Laboratory", "lab")
    slurm_site.side.move_project(project, "lab")
    slurm_site.sync()
    slurm_site.slurm.run("scontrol", "reconfigure")  # slurmctld reads all associations again
    assert reason_of_a_job(slurm_site, resource) == "AssocGrpCpuLimit"
    slurm_site.set(resource, "GrpTRES=cpu=-1")
    slurm_site.by_hand("modify", "account", "where", f"name={slurm_site.prefix}c_lab", "set",
                       "GrpTRES=cpu=1")  # fmt: skip
    assert reason_of_a_job(slurm_site, resource) == "AssocGrpCpuLimit"
    slurm_site.by_hand("remove", "account", "where", f"name={slurm_site.prefix}c_uni")
    assert slurm_site.account(resource).users == {slurm_site.ada, slurm_site.bob}
    assert slurm_site.may_submit(slurm_site.ada, resource)
