"""Who may change memberships, and how users are called, on a real Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    Action,
    AddMembers,
    CreateResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
)
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RealSlurm

pytestmark = pytest.mark.slurm


@pytest.fixture
def backend(real_slurm: RealSlurm, tmp_path: Path) -> SlurmBackend:
    settings = SlurmSettings(lock_file=tmp_path / "lock", require_system_user=False)
    return SlurmBackend(settings, {}, runner=real_slurm.runner())


@pytest.fixture
def resource(backend: SlurmBackend, prefix: str) -> str:
    request = ResourceRequest(
        resource_name="Climate",
        project_slug=f"{prefix}-proj",
        project_name="Project",
        customer_slug=f"{prefix}-cust",
        customer_name="Customer",
    )
    placement = backend.place(request, f"{prefix}-one")
    assert apply(backend, CreateResource(placement)).result is Result.DONE
    return placement.id


def apply(backend: SlurmBackend, action: Action) -> Outcome:
    (outcome,) = backend.apply([action])
    return outcome


def test_a_coordinator_who_left_cannot_come_back_nor_let_strangers_in(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str
) -> None:
    leaver, stranger = real_slurm.users[:2]
    apply(backend, AddMembers(resource, (leaver,)))
    real_slurm.sacctmgr("add", "coordinator", f"account={resource}", f"names={leaver}")
    assert apply(backend, RemoveMembers(resource, (leaver,))).result is Result.DONE
    for user in (leaver, stranger):
        words = ("sacctmgr", "-i", "add", "user", f"name={user}", f"account={resource}")
        assert "permission denied" in real_slurm.run(*words, user=leaver).stderr
    assert backend.observe().resources[resource].members == frozenset()


def test_an_account_that_a_coordinator_made_does_not_become_that_of_a_project(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str, prefix: str
) -> None:
    coordinator, name = real_slurm.users[0], f"{prefix}-vic"
    apply(backend, AddMembers(resource, (coordinator,)))
    real_slurm.sacctmgr("add", "coordinator", f"account={resource}", f"names={coordinator}")
    account = (f"name={name}", f"parent={resource}", f"organization={name}")
    made = real_slurm.run("sacctmgr", "-i", "add", "account", *account, user=coordinator)
    assert made.returncode == 0, made.stderr
    request = ResourceRequest(
        resource_name="Run",
        project_slug=name,
        project_name="Victim",
        customer_slug=f"{prefix}-other",
        customer_name="Others",
    )
    outcome = apply(backend, CreateResource(backend.place(request, f"{prefix}-two")))
    assert isinstance(outcome.error, PermanentError)
    assert f"coordinators may have made it ({coordinator})" in str(outcome.error)
    assert f"{prefix}-two" not in backend.observe().resources


def test_an_operator_who_leaves_the_last_account_is_an_operator_still(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str
) -> None:
    user = real_slurm.users[0]
    words = ("add", "user", f"name={user}", f"account={resource}", "adminlevel=operator")
    real_slurm.sacctmgr(*words)
    assert apply(backend, RemoveMembers(resource, (user,))).result is Result.DONE
    asked = ("show", "user", f"name={user}", "format=defaultaccount,adminlevel")
    assert real_slurm.run("sacctmgr", "-P", "-n", *asked).stdout == "root|Operator\n"
    assert backend.observe().resources[resource].members == frozenset()


@pytest.mark.parametrize("name", ["eva@example.org", "machine$", "a+b", "x" * 36])
def test_unusual_usernames_are_added_and_removed(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str, prefix: str, name: str
) -> None:
    user = f"{prefix}{name}"
    assert apply(backend, AddMembers(resource, (user,))).result is Result.DONE
    assert {user} == backend.observe().resources[resource].members
    assert apply(backend, RemoveMembers(resource, (user,))).result is Result.DONE
    assert not [row for row in real_slurm.associations(resource) if user in row]


def test_capitals_are_kept_where_the_cluster_keeps_them_and_refused_elsewhere(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str, prefix: str
) -> None:
    user = f"{prefix}Ada"
    outcome = apply(backend, AddMembers(resource, (user,)))
    assert [(left.name, type(left.error)) for left in outcome.skipped] == [(user, PermanentError)]
    assert backend.observe().resources[resource].members == frozenset()
    with real_slurm.slurmdbd_with("PreserveCaseUser"):
        before = backend.observe().resources[resource]
        assert apply(backend, AddMembers(resource, (user,))).result is Result.DONE
        assert {user} == backend.observe().resources[resource].members
        other = apply(backend, AddMembers(resource, (user.lower(),)))
        assert "Slurm has the user" in str(other.skipped[0].error)
        assert apply(backend, RemoveMembers(resource, (user.lower(),))).result is Result.UNCHANGED
        assert apply(backend, RemoveMembers(resource, (user,))).result is Result.DONE
        assert before == backend.observe().resources[resource]
