"""The simulated Slurm behind executables."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    Action,
    AddMembers,
    CreateResource,
    Result,
)
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm, render_tree, write_executables

if TYPE_CHECKING:
    from pathlib import Path


REQUEST = ResourceRequest(
    resource_name="Climate", project_slug="p", project_name="Proj",
    customer_slug="c", customer_name="Cust",
)  # fmt: skip


def test_a_configuration_can_be_tried_with_executables_and_no_slurm(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    commands = write_executables(tmp_path / "bin", state)
    settings = SlurmSettings(
        slurm_bin_path=commands, lock_file=tmp_path / "lock", require_system_user=False
    )
    backend = SlurmBackend(settings, {})
    placement = backend.place(REQUEST, "a")
    actions: list[Action] = [
        CreateResource(placement, {"cpu": Decimal(60)}),
        AddMembers("a", ("ada",)),
    ]
    assert [outcome.result for outcome in backend.apply(actions)] == [Result.DONE] * 2
    assert render_tree(SimulatedSlurm(state_file=state).state).splitlines() == [
        'root  "default root account"',
        '└─ c  "cust"',
        '   └─ p  "proj"',
        '      └─ a  "climate"  GrpTRESMins cpu=60  members: ada',
    ]
