"""MOAB's commands as processes."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from harness.patience import eventually
from waldur_site_agent.backends import (
    Action,
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    Result,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent.backends.locking import exclusive_lock
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.simulator import SimulatedMam, write_executables


def settings(directory: Path) -> MoabSettings:
    return MoabSettings(
        mam_bin_path=directory / "bin", lock_file=directory / "lock", command_timeout_seconds=30
    )


def test_a_resource_lives_and_dies_through_real_processes(tmp_path: Path) -> None:
    write_executables(tmp_path / "bin", tmp_path / "mam.json")
    mam = SimulatedMam(state_file=tmp_path / "mam.json")
    backend = MoabBackend(settings(tmp_path), {})
    request = ResourceRequest(
        resource_name='-Ocean\'s "runs" | 1\n',
        project_slug="climate",
        project_name="",
        customer_slug="uni",
        customer_name="Ünï $HOME",
    )
    placement = backend.place(request, "ocean")
    actions: list[Action] = [
        CreateResource(placement, {"deposit": Decimal("10.5")}),
        AddMembers("ocean", ("a",)),
    ]
    assert [o.result for o in backend.apply(actions)] == [Result.DONE] * 2
    account = mam.state.accounts["ocean"]
    assert (account.description, account.organization) == ("Ocean s runs 1", "climate")
    assert mam.state.accounts["uni"].description == "Ünï $HOME"
    assert account.users == {"a": True}
    assert Decimal("10.5") == mam.state.left_of("ocean")
    ends: list[Action] = [RemoveMembers("ocean", ("a",)), DeleteResource("ocean", "climate")]
    assert [o.result for o in backend.apply(ends)] == [Result.DONE] * 2
    assert set(mam.state.accounts) == {"root", "uni"}
    counted = backend.commands_run()
    assert counted["mam write"] == 3 + 1 + 1 + 1 + 1 + 3


_AGENT = """
import sys
from decimal import Decimal
from pathlib import Path
from waldur_site_agent.backends import SetLimits
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.settings import MoabSettings
directory = Path(sys.argv[1])
settings = MoabSettings(lock_file=directory / "lock", mam_bin_path=directory / "bin")
list(MoabBackend(settings, {}).apply([SetLimits("ocean", {"deposit": Decimal(100)})]))
"""


@pytest.mark.guarantee("moab: Money")
def test_a_deposit_that_a_killed_agent_left_behind_is_waited_for(tmp_path: Path) -> None:
    binaries = write_executables(tmp_path / "bin", tmp_path / "mam.json")
    mam = SimulatedMam(state_file=tmp_path / "mam.json")
    mam.run(["mam-create-account", "-a", "ocean", "-d", "x", "-o", "climate"])
    mam.run(["mam-create-fund", "-a", "ocean"])
    real = (binaries / "mam-deposit").rename(binaries / "real-deposit")
    slow = binaries / "mam-deposit"
    slow.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/depositing\n"
        f'while [ ! -e {tmp_path}/go ]; do sleep 0.02; done\nexec {real} "$@"\n',
        encoding="utf-8",
    )
    slow.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", _AGENT, str(tmp_path)]) as agent:
        eventually((tmp_path / "depositing").exists, "the deposit begins")
        agent.kill()
    wanted = SetLimits("ocean", {"deposit": Decimal(100)})
    impatient = MoabBackend(settings(tmp_path), {}, lock_wait_seconds=0.2)
    (outcome,) = impatient.apply([wanted])
    assert isinstance(outcome.error, TemporaryError)
    assert "the mam command that it left running" in str(outcome.error)
    (tmp_path / "go").touch()
    with exclusive_lock(tmp_path / "lock", 30, ""):
        pass
    (outcome,) = MoabBackend(settings(tmp_path), {}).apply([wanted])
    assert outcome.result is Result.UNCHANGED
    assert Decimal(100) == mam.state.left_of("ocean")
