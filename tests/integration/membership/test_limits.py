"""Limits that differ, on a real Slurm: each side can follow the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import SlurmSite
    from waldur_site_agent_sandbox import Resource

pytestmark = pytest.mark.slurm


def limits(slurm_site: SlurmSite, resource: Resource) -> tuple[str, dict[str, object]]:
    """Those of the account, as sacctmgr prints them, and those that Waldur shows."""
    return slurm_site.account(resource).limit(), dict(slurm_site.side.current(resource).limits)


def sync(slurm_site: SlurmSite, to: str, *words: str) -> str:
    arguments = ("limits", "sync", "--to", to, *words)
    done = slurm_site.site.run(*arguments, command="waldur-site-agent")
    assert done.code == 0, done.err + done.out
    return done.out


def test_limits_are_brought_to_either_side_by_hand_and_then_agree(slurm_site: SlurmSite) -> None:
    ((_, resource),) = slurm_site.open_projects("climate")
    slurm_site.set(resource, "GrpTRESMins=cpu=720000")
    change = "limit cpu 720000 -> 600000 (sold in Waldur: 10 k-Hours)"
    assert f"on the account: {change}" in sync(slurm_site, "backend", "--dry-run")
    assert limits(slurm_site, resource) == ("cpu=720000", {"cpu": 10})
    sync(slurm_site, "backend")
    assert limits(slurm_site, resource) == ("cpu=600000", {"cpu": 10})
    slurm_site.set(resource, "GrpTRESMins=cpu=720000")
    change = "limit cpu 10 -> 12 k-Hours (the account has 720000)"
    assert f"in Waldur: {change}" in sync(slurm_site, "waldur", "--dry-run")
    assert limits(slurm_site, resource) == ("cpu=720000", {"cpu": 10})
    sync(slurm_site, "waldur")
    assert limits(slurm_site, resource) == ("cpu=720000", {"cpu": 12})
    assert "nothing to do" in sync(slurm_site, "backend")
    assert "nothing to do" in sync(slurm_site, "waldur")


def test_where_waldur_wins_memory_printed_with_lost_digits_is_set_once(
    slurm_site: SlurmSite,
) -> None:
    """1049088 MiB-minutes are printed as 1.00T: what is read back is not what was set."""
    ((project, _),) = slurm_site.open_projects("climate")
    order = slurm_site.testbed.order(project, "memory", cpu=10, mem=17.075)
    done = slurm_site.site.run("-m", "order_process", "--once")
    assert done.code == 0, done.err
    resource = slurm_site.testbed.resource(order)
    settings = slurm_site.site.backend_settings | {"enable_user_homedir_account_creation": False}
    slurm_site.site.write(
        membership_sync_backend="slurm", limits="waldur", backend_settings=settings
    )
    slurm_site.sync()
    slurm_site.set(resource, "GrpTRESMins=cpu=7,mem=-1")
    printed = slurm_site.sync()
    assert "SetLimits" in printed
    text, sold = limits(slurm_site, resource)
    assert text.startswith("cpu=600000,mem=")
    assert sold == {"cpu": 10, "mem": 17.075}
    before = slurm_site.slurm.associations()
    assert "SetLimits" not in slurm_site.sync()
    assert slurm_site.slurm.associations() == before
