"""A site without a paused QOS, on a real Slurm: GrpSubmitJobs=0 keeps everybody out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import SlurmSite
    from waldur_site_agent_sandbox import Resource

pytestmark = pytest.mark.slurm


def submit_limit(slurm_site: SlurmSite, resource: Resource) -> str:
    words = ("show", "account", "withassoc", "wopl", f"name={resource.backend_id}", "user=")
    found = slurm_site.slurm.run("sacctmgr", "-P", "-n", *words, "format=grpsubmit")
    return str(found.stdout.splitlines()[0])


def test_a_paused_resource_takes_no_jobs_and_gets_its_own_limit_back(
    slurm_site: SlurmSite,
) -> None:
    del slurm_site.site.backend_settings["qos_paused"]
    slurm_site.site.write(membership_sync_backend="slurm")
    ((_, resource),) = slurm_site.open_projects("climate")
    slurm_site.set(resource, "GrpSubmitJobs=9")
    job = slurm_site.slurm.submit_job(slurm_site.ada, resource.backend_id)
    slurm_site.side.set_flags(resource, paused=True)
    slurm_site.sync()
    assert submit_limit(slurm_site, resource) == "0"
    slurm_site.slurm.wait_until(lambda: not slurm_site.may_submit(slurm_site.ada, resource))
    assert slurm_site.account(resource).jobs == [job]
    assert "action applied" not in slurm_site.sync()
    slurm_site.side.set_flags(resource, paused=False)
    slurm_site.sync()
    assert submit_limit(slurm_site, resource) == "9"
    slurm_site.slurm.wait_until(lambda: slurm_site.may_submit(slurm_site.ada, resource))
