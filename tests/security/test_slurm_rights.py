"""What Slurm itself lets people do: numbers for usernames, and coordinators who make accounts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from waldur_site_agent.backends import AddMembers, CreateResource
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
    members = frozenset({"1001", "0990", "2002", "x1001"})
    _, added = backend.apply(
        [CreateResource(place, {"cpu": Decimal(60)}), AddMembers(place.id, members)]
    )
    assert {left.name for left in added.skipped} == {"1001", "0990"}
    assert all("whoever has the number" in str(left.error) for left in added.skipped)
    assert backend.read().accounts[place.id].users == {"2002", "x1001"}
