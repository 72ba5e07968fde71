"""What Slurm itself lets people do: numbers for usernames, and coordinators who make accounts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from waldur_site_agent.backends import AddMembers, CreateResource, PermanentError, Result
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm

REQUEST = ResourceRequest(
    resource_name="Res", project_slug="vic", project_name="Proj",
    customer_slug="vicorg", customer_name="Cust",
)  # fmt: skip


@pytest.mark.guarantee("security: Threat model")
def test_nobody_is_taken_for_the_user_whose_number_is_their_username(tmp_path: Path) -> None:
    """Slurm 22.05 resolves it so: an operator of that number is none after the next restart."""
    slurm = SimulatedSlurm()
    settings = SlurmSettings(lock_file=tmp_path / "lock", require_system_user=False)
    backend = SlurmBackend(
        settings, {}, runner=slurm.runner(), user_exists=lambda name: name == "2002"
    )
    place = backend.place(REQUEST, "run")
    members = ("1001", "0990", "2002", "x1001")
    _, added = backend.apply(
        [CreateResource(place, {"cpu": Decimal(60)}), AddMembers(place.id, members)]
    )
    assert {left.name for left in added.skipped} == {"1001", "0990"}
    assert all("whoever has the number" in str(left.error) for left in added.skipped)
    assert backend.read().accounts[place.id].users == {"2002", "x1001"}


@pytest.mark.parametrize("container", ["vic", "vicorg"])
@pytest.mark.guarantee("security: Threat model")
def test_no_coordinator_gets_the_account_of_a_project_by_making_the_one_above_it(
    tmp_path: Path, container: str
) -> None:
    """Slurm lets coordinators make any account below theirs, and use whatever comes below it."""
    slurm = SimulatedSlurm()
    add = ["sacctmgr", "-i", "add"]
    slurm.run([*add, "account", "name=mine"])
    slurm.run([*add, "user", "name=mallory", "account=mine"])
    slurm.run([*add, "coordinator", "account=mine", "names=mallory"])
    slurm.run([*add, "account", "name=below", "parent=mine"])
    slurm.run([*add, "account", f"name={container}", "parent=below", f"organization={container}"])
    settings = SlurmSettings(lock_file=tmp_path / "lock", require_system_user=False)
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    create = CreateResource(backend.place(REQUEST, "run"), {"cpu": Decimal(60)})
    (refused,) = backend.apply([create])
    assert isinstance(refused.error, PermanentError)
    assert "coordinators may have made it (mallory)" in str(refused.error)
    assert slurm.state.accounts.keys() == {"root", "mine", "below", container}
    slurm.run(["sacctmgr", "-i", "remove", "coordinator", "account=mine", "names=mallory"])
    (made,) = backend.apply([create])
    assert made.result is Result.DONE
