"""Rights that would let a leaver come back, and rights that no team ever gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import DeleteResource, RemoveMembers, Result
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm

if TYPE_CHECKING:
    from pathlib import Path

    from waldur_site_agent.backends import Action


@pytest.fixture
def slurm() -> SimulatedSlurm:
    """Accounts a > b > c, with ada and bob in all of them, known besides by root."""
    slurm = SimulatedSlurm()
    for account, parent in (("a", "root"), ("b", "a"), ("c", "b")):
        slurm.run(["sacctmgr", "-i", "add", "account", f"name={account}", f"parent={parent}"])
    for account in ("root", "a", "b", "c"):
        slurm.run(["sacctmgr", "-i", "add", "user", "name=ada,bob", f"account={account}"])
    slurm.history.clear()
    return slurm


def coordinate(slurm: SimulatedSlurm, account: str, users: str) -> None:
    slurm.run(["sacctmgr", "-i", "add", "coordinator", f"account={account}", f"names={users}"])


def coordinators(slurm: SimulatedSlurm) -> dict[str, list[str]]:
    state = slurm.state
    return {name: state.all_coordinators(a) for name, a in state.accounts.items() if name != "root"}


def apply(
    slurm: SimulatedSlurm, directory: Path, *actions: Action, default_account: str = "root"
) -> list[Result]:
    settings = SlurmSettings(
        lock_file=directory / "lock", require_system_user=False, default_account=default_account
    )
    return [o.result for o in SlurmBackend(settings, {}, runner=slurm.runner()).apply(actions)]


def test_a_coordinator_who_leaves_loses_the_right_before_the_association(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    coordinate(slurm, "b", "ada,bob")
    assert apply(slurm, tmp_path, RemoveMembers("b", ("ada",))) == [Result.DONE]
    assert coordinators(slurm) == {"a": [], "b": ["bob"], "c": ["bob"]}
    writes = [" ".join(argv[2:4]) for argv in slurm.history if argv[1] == "-i"]
    assert writes.index("remove coordinator") < writes.index("remove user")


def test_below_the_account_only_members_keep_a_right_that_was_given_there(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    coordinate(slurm, "b,c", "ada,bob")
    apply(slurm, tmp_path, RemoveMembers("c", ("ada",)))
    coordinate(slurm, "c", "ada")
    assert apply(slurm, tmp_path, RemoveMembers("b", ("ada", "bob"))) == [Result.DONE]
    assert coordinators(slurm) == {"a": [], "b": [], "c": ["bob"]}


def test_a_right_in_an_account_above_stays_and_is_named(
    slurm: SimulatedSlurm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coordinate(slurm, "a", "ada")
    assert apply(slurm, tmp_path, RemoveMembers("b", ("ada",))) == [Result.DONE]
    assert "ada" not in slurm.state.accounts["b"].members
    assert coordinators(slurm)["a"] == ["ada"]
    assert "sacctmgr remove coordinator account=a names=ada" in caplog.text


def test_an_account_that_is_made_again_has_no_coordinators_of_before(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    coordinate(slurm, "c", "ada")
    assert apply(slurm, tmp_path, DeleteResource("c")) == [Result.DONE]
    wanted = ("sacctmgr", "-i", "remove", "coordinator", "where", "account=c", "names=ada")
    assert wanted in slurm.history
    slurm.run(["sacctmgr", "-i", "add", "account", "name=c", "parent=b"])
    assert coordinators(slurm)["c"] == []


def test_without_coordinators_a_removal_costs_one_read_more_and_no_write(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    apply(slurm, tmp_path, RemoveMembers("b", ("ada",)))
    assert sum("withcoord" in argv for argv in slurm.history) == 1
    assert not any("coordinator" in argv for argv in slurm.history)


@pytest.mark.parametrize("action", [RemoveMembers("a", ("eve",)), DeleteResource("a")])
def test_an_administrator_who_leaves_the_last_account_keeps_the_admin_level(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, action: Action
) -> None:
    slurm = SimulatedSlurm()
    slurm.run(["sacctmgr", "-i", "add", "account", "name=a", "parent=root"])
    slurm.run(["sacctmgr", "-i", "add", "user", "name=eve", "account=a", "adminlevel=operator"])
    assert apply(slurm, tmp_path, action) == [Result.DONE]
    state = slurm.state
    assert [account.name for account in state.accounts_of("eve")] == ["root"]
    assert state.accounts["root"].members["eve"].max_submit == 0
    assert (state.users["eve"].admin_level, state.users["eve"].default_account) == (
        "Operator",
        "root",
    )
    assert "eve leaves the last account and has AdminLevel Operator" in caplog.text
    assert apply(slurm, tmp_path, action) == [Result.UNCHANGED]


def test_an_ordinary_user_who_leaves_the_last_account_is_forgotten(tmp_path: Path) -> None:
    slurm = SimulatedSlurm()
    slurm.run(["sacctmgr", "-i", "add", "account", "name=a", "parent=root"])
    slurm.run(["sacctmgr", "-i", "add", "user", "name=eve", "account=a"])
    assert apply(slurm, tmp_path, RemoveMembers("a", ("eve",))) == [Result.DONE]
    assert "eve" not in slurm.state.users


def test_an_administrator_who_cannot_be_kept_keeps_nobody_else_in_an_account(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    slurm.run(["sacctmgr", "-i", "add", "account", "name=d", "parent=root"])
    slurm.run(["sacctmgr", "-i", "add", "user", "name=eve", "account=d", "adminlevel=operator"])
    leaving = (RemoveMembers("d", ("eve",)), RemoveMembers("b", ("ada",)))
    results = apply(slurm, tmp_path, *leaving, default_account="missing")
    assert results == [Result.FAILED, Result.DONE]
    assert slurm.state.users["eve"].admin_level == "Operator"
    assert "ada" not in slurm.state.accounts["b"].members
