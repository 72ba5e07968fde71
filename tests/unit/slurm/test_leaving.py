"""Default accounts, deletions and what must not be deleted, on the simulated Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    PermanentError,
    RemoveMembers,
    Result,
    TemporaryError,
)
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm

if TYPE_CHECKING:
    from pathlib import Path

    from waldur_site_agent.backends import Action

REQUEST = ResourceRequest(
    resource_name="Res", project_slug="p", project_name="Proj",
    customer_slug="c", customer_name="Cust",
)  # fmt: skip


@pytest.fixture
def slurm() -> SimulatedSlurm:
    return SimulatedSlurm()


@pytest.fixture
def backend(slurm: SimulatedSlurm, tmp_path: Path) -> SlurmBackend:
    settings = SlurmSettings(lock_file=tmp_path / "lock", require_system_user=False)
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    made = backend.apply([CreateResource(backend.place(REQUEST, slug)) for slug in ("a", "b")])
    assert [outcome.result for outcome in made] == [Result.DONE, Result.DONE]
    return backend


def add_by_hand(slurm: SimulatedSlurm, user: str, *accounts: str) -> None:
    """Add a user as an administrator does: the first account becomes the default."""
    for account in accounts:
        assert (
            slurm.run(["sacctmgr", "-i", "add", "user", f"name={user}", f"account={account}"])[0]
            == 0
        )


def only(backend: SlurmBackend, action: Action) -> Result:
    (outcome,) = backend.apply([action])
    return outcome.result


def test_slurm_itself_refuses_to_mix_users_with_and_without_this_default(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    backend.apply([AddMembers("a", ("ada",))])
    add_by_hand(slurm, "bob", "a")
    remove = ["sacctmgr", "-i", "remove", "user", "where", "name=ada,bob", "account=a"]
    assert "can not remove the default account" in slurm.run(remove)[2]


def test_users_with_and_without_another_account_leave_in_one_action(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    backend.apply([AddMembers("a", ("ada",))])
    add_by_hand(slurm, "bob", "a")
    add_by_hand(slurm, "cyd", "a", "b")
    assert only(backend, RemoveMembers("a", ("ada", "bob", "cyd"))) is Result.DONE
    assert slurm.state.accounts["a"].members == {}
    assert slurm.state.users["ada"].default_account == "root"
    assert "bob" not in slurm.state.users
    assert slurm.state.users["cyd"].default_account == "b"


def test_a_resource_with_both_kinds_of_users_is_deleted(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    backend.apply([AddMembers("a", ("ada",))])
    add_by_hand(slurm, "bob", "a")
    add_by_hand(slurm, "cyd", "a", "b")
    assert only(backend, DeleteResource("a", "p")) is Result.DONE
    assert slurm.state.users["cyd"].default_account == "b"
    assert "p" in slurm.state.accounts


def test_users_that_slurm_knows_keep_their_default_account_and_get_no_other(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    add_by_hand(slurm, "bob", "b")
    assert only(backend, AddMembers("a", ("bob",))) is Result.DONE
    assert slurm.state.users["bob"].default_account == "b"
    assert "bob" not in slurm.state.accounts["root"].members


def test_a_default_account_of_the_site_is_open_to_new_users(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    slurm.run(["sacctmgr", "-i", "add", "account", "name=hpc"])
    settings = SlurmSettings(
        default_account="hpc", lock_file=tmp_path / "lock", require_system_user=False
    )
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    placement = backend.place(REQUEST, "a")
    backend.apply([CreateResource(placement), AddMembers("a", ("ada",))])
    assert slurm.state.accounts["c"].parent == "hpc"
    assert slurm.state.accounts["hpc"].members["ada"].max_submit is None


def test_a_missing_default_account_is_temporary_and_named(tmp_path: Path) -> None:
    slurm = SimulatedSlurm()
    settings = SlurmSettings(default_account="hpc", lock_file=tmp_path / "lock")
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    (outcome,) = backend.apply([CreateResource(backend.place(REQUEST, "a"))])
    with pytest.raises(TemporaryError, match=r"'hpc'.*default_account"):
        raise outcome.error or AssertionError


def test_the_default_account_is_never_deleted(slurm: SimulatedSlurm, tmp_path: Path) -> None:
    slurm.run(["sacctmgr", "-i", "add", "account", "name=hpc", "organization=hpc"])
    settings = SlurmSettings(default_account="hpc", lock_file=tmp_path / "lock")
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    (outcome,) = backend.apply([DeleteResource("hpc")])
    assert isinstance(outcome.error, PermanentError)
    assert "hpc" in slurm.state.accounts


def test_jobs_go_on_when_a_deletion_is_refused(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    slurm.submit_job("ada", "p")
    (outcome,) = backend.apply([DeleteResource("p")])
    with pytest.raises(PermanentError, match="the accounts a, b are below it"):
        raise outcome.error or AssertionError
    assert len(slurm.state.jobs) == 1


def test_a_container_may_follow_its_resources_in_one_call(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    outcomes = backend.apply([DeleteResource(name) for name in ("a", "b", "p", "c")])
    assert [outcome.result for outcome in outcomes] == [Result.DONE] * 4
    assert set(slurm.state.accounts) == {"root"}


def test_a_foreign_project_account_is_left_behind(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    with slurm.change() as state:
        state.accounts["p"].organization = "physics"
    results = [only(backend, DeleteResource(name, "p")) for name in ("a", "b")]
    assert results == [Result.DONE, Result.DONE]
    assert "p" in slurm.state.accounts
