"""Limits that differ, on a real Slurm: each side can follow the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import Town
    from waldur_site_agent_sandbox import Resource

pytestmark = pytest.mark.slurm


def limits(town: Town, resource: Resource) -> tuple[str, dict[str, object]]:
    """Those of the account, as sacctmgr prints them, and those that Waldur shows."""
    return town.account(resource).limit(), dict(town.side.current(resource).limits)


def sync(town: Town, to: str, *words: str) -> str:
    arguments = ("limits", "sync", "--to", to, *words)
    done = town.site.run(*arguments, command="waldur-site-agent")
    assert done.code == 0, done.err + done.out
    return done.out


def test_limits_are_brought_to_either_side_by_hand_and_then_agree(town: Town) -> None:
    ((_, resource),) = town.open_projects("climate")
    town.set(resource, "GrpTRESMins=cpu=720000")
    change = "limit cpu 720000 -> 600000 (sold in Waldur: 10 k-Hours)"
    assert f"on the account: {change}" in sync(town, "backend", "--dry-run")
    assert limits(town, resource) == ("cpu=720000", {"cpu": 10})
    sync(town, "backend")
    assert limits(town, resource) == ("cpu=600000", {"cpu": 10})
    town.set(resource, "GrpTRESMins=cpu=720000")
    change = "limit cpu 10 -> 12 k-Hours (the account has 720000)"
    assert f"in Waldur: {change}" in sync(town, "waldur", "--dry-run")
    assert limits(town, resource) == ("cpu=720000", {"cpu": 10})
    sync(town, "waldur")
    assert limits(town, resource) == ("cpu=720000", {"cpu": 12})
    assert "nothing to do" in sync(town, "backend")
    assert "nothing to do" in sync(town, "waldur")


def test_where_waldur_wins_memory_printed_with_lost_digits_is_set_once(town: Town) -> None:
    """1049088 MiB-minutes are printed as 1.00T: what is read back is not what was set."""
    ((project, _),) = town.open_projects("climate")
    order = town.house.order(project, "memory", cpu=10, mem=17.075)
    done = town.site.run("-m", "order_process", "--once")
    assert done.code == 0, done.err
    resource = town.house.resource(order)
    settings = town.site.backend_settings | {"enable_user_homedir_account_creation": False}
    town.site.write(membership_sync_backend="slurm", limits="waldur", backend_settings=settings)
    town.sync()
    town.set(resource, "GrpTRESMins=cpu=7,mem=-1")
    printed = town.sync()
    assert "SetLimits" in printed
    text, sold = limits(town, resource)
    assert text.startswith("cpu=600000,mem=")
    assert sold == {"cpu": 10, "mem": 17.075}
    before = town.slurm.associations()
    assert "SetLimits" not in town.sync()
    assert town.slurm.associations() == before
