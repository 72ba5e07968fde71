"""The simulated Slurm as people and other processes use it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    Check,
    CheckStatus,
)
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import QosManagement, SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.simulator.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path
from typing import Any


def test_the_command_line_keeps_its_cluster_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state", str(tmp_path / "state.json")]
    assert main([*state, "sacctmgr", "-i", "add", "account", "name=a,b"]) == 0
    assert main([*state, "sacctmgr", "-i", "add", "account", "name=a"]) == 1
    capsys.readouterr()
    assert main([*state, "tree"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["├─ a", "└─ b"]


def test_the_file_remembers_the_version_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        main(["--state", str(tmp_path / "state.json"), *words])
        return capsys.readouterr().out

    add = ("sacctmgr", "-i", "add", "account", "name=a")
    assert said("sacctmgr", "-V") == "slurm-wlm 22.05.8\n"
    assert said("--version", "24.11", "sacctmgr", "-V") == "slurm-wlm 24.11.5\n"
    assert "gres|gpumem" in said("sacctmgr", "-P", "-n", "show", "tres")
    assert " Associations =\n" in said(*add)
    assert said(*add) == " Already existing account a on cluster simulated\n"
    assert said("--version", "22.05", *add) == " Nothing new added.\n"


def test_processes_that_share_a_file_lose_no_update(tmp_path: Path) -> None:
    state = tmp_path / "state.json"

    def add(number: int) -> int:
        slurm = SimulatedSlurm(state_file=state)
        return slurm.run(["sacctmgr", "-i", "add", "account", f"name=a{number}"])[0]

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(add, range(40)))
    assert codes == [0] * 40
    assert len(SimulatedSlurm(state_file=state).state.accounts) == 41


def test_users_that_the_operating_system_does_not_know_are_not_usable_yet(tmp_path: Path) -> None:
    users = ("ada", "bob", "a,b")
    for required, expected in ((True, {"bob"}), (False, set[str]())):
        settings = SlurmSettings(require_system_user=required, lock_file=tmp_path / "lock")
        backend = SlurmBackend(settings, {}, user_exists=lambda name: name == "ada")
        assert expected == backend.not_yet_usable(users)


def test_brackets_and_commas_make_lists_as_in_the_real_thing() -> None:
    slurm = SimulatedSlurm()
    slurm.run(["sacctmgr", "-i", "add", "account", "name=Br[1-3],x"])
    assert sorted(slurm.state.accounts) == ["br1", "br2", "br3", "root", "x"]


def diagnosis(slurm: SimulatedSlurm, tmp_path: Path, **settings: Any) -> dict[str, Check]:
    component = Component(type="gpus", measured_unit="h", label="GPU", accounting_type="limit")
    chosen = SlurmSettings(lock_file=tmp_path / "lock", **settings)
    backend = SlurmBackend(chosen, {"gpus": component}, runner=slurm.runner())
    return {check.name: check for check in backend.diagnose()}


def test_a_diagnosis_names_what_is_wrong_and_its_remedy(tmp_path: Path) -> None:
    slurm = SimulatedSlurm()
    with slurm.change() as state:
        state.configuration["AccountingStorageEnforce"] = "none"
        state.configuration["PriorityDecayHalfLife"] = "7-00:00:00"
    found = diagnosis(slurm, tmp_path, default_account="hpc", qos_paused="stop")
    expected = {
        "default_account": CheckStatus.FAILED,
        "qos_default": CheckStatus.OK,
        "qos_paused": CheckStatus.FAILED,
        "TRES gpus": CheckStatus.FAILED,
        "AccountingStorageEnforce": CheckStatus.WARNING,
        "usage that counts for limits": CheckStatus.WARNING,
    }
    assert expected == {name: found[name].verdict for name in expected}
    assert all(found[name].remedy for name in expected if name != "qos_default")


def test_a_diagnosis_without_slurm_commands_says_where_they_should_be(tmp_path: Path) -> None:
    check, *others = SlurmBackend(SlurmSettings(slurm_bin_path=tmp_path), {}).diagnose()
    assert [other.name for other in others] == ["home directories"]
    assert check.verdict is CheckStatus.FAILED
    assert "slurm_bin_path" in check.remedy


def test_a_cluster_that_slurmdbd_does_not_know_is_named_with_those_it_knows(
    tmp_path: Path,
) -> None:
    check = diagnosis(SimulatedSlurm(), tmp_path, cluster="other")["cluster"]
    assert check.verdict is CheckStatus.FAILED
    assert "'other'; it knows: simulated" in check.detail


def test_pausing_that_slurmctld_does_not_enforce_fails_the_diagnosis(tmp_path: Path) -> None:
    slurm = SimulatedSlurm()
    with slurm.change() as state:
        state.configuration["AccountingStorageEnforce"] = "associations,limits"
    assert diagnosis(slurm, tmp_path)["pausing"].verdict is CheckStatus.OK
    by_qos = diagnosis(slurm, tmp_path, qos_paused="paused")["pausing"]
    assert (by_qos.verdict, "add qos to" in by_qos.remedy) == (CheckStatus.FAILED, True)
    with slurm.change() as state:
        state.configuration["AccountingStorageEnforce"] = "associations,qos"
    by_limit = diagnosis(slurm, tmp_path)["pausing"]
    assert (by_limit.verdict, "add limits to" in by_limit.remedy) == (CheckStatus.FAILED, True)


def test_a_paused_qos_that_lets_jobs_in_is_pointed_out(tmp_path: Path) -> None:
    slurm = SimulatedSlurm()
    found = diagnosis(slurm, tmp_path, qos_paused="paused")["limits of QOS paused"]
    assert found.verdict is CheckStatus.OK
    with slurm.change() as state:
        state.qos_columns["paused"] = {"grptres": "cpu=10", "maxsubmitpu": "10"}
    found = diagnosis(slurm, tmp_path, qos_paused="paused")["limits of QOS paused"]
    assert found.verdict is CheckStatus.WARNING
    assert "MaxSubmitJobsPerUser=0" in found.remedy


def test_accounts_that_let_no_jobs_in_are_named_where_pausing_is_by_qos(tmp_path: Path) -> None:
    slurm = SimulatedSlurm()
    slurm.run(["sacctmgr", "-i", "add", "account", "name=ice", "parent=root"])
    slurm.run(["sacctmgr", "-i", "modify", "account", "where", "name=ice", "set",
               "GrpSubmitJobs=0"])  # fmt: skip
    assert "GrpSubmitJobs" not in diagnosis(slurm, tmp_path)
    found = diagnosis(slurm, tmp_path, qos_paused="paused")["GrpSubmitJobs"]
    assert (found.verdict, "ice" in found.detail) == (CheckStatus.WARNING, True)


def test_with_skip_qos_swap_no_qos_is_needed_for_access(tmp_path: Path) -> None:
    slurm = SimulatedSlurm()
    with slurm.change() as state:
        state.qos.remove("normal")
        state.accounts["root"].qos = []
    management = {"enabled": True, "skip_qos_swap": True, "additional_qos": ["limited", "gone"]}
    found = diagnosis(slurm, tmp_path, qos_management=QosManagement.model_validate(management))
    assert "qos_default" not in found
    assert found["qos_downscaled"].verdict is CheckStatus.OK
    assert found["permission to make QOS"].verdict is CheckStatus.OK
    assert "sacctmgr add qos gone" in found["additional_qos"].remedy


def test_a_default_partition_that_does_not_exist_is_named_with_those_that_do(
    tmp_path: Path,
) -> None:
    slurm = SimulatedSlurm()
    found = diagnosis(slurm, tmp_path, default_partition="Main")["default_partition"]
    assert found.verdict is CheckStatus.OK
    found = diagnosis(slurm, tmp_path, default_partition="gpu")["default_partition"]
    assert (found.verdict, "there are main" in found.detail) == (CheckStatus.FAILED, True)
