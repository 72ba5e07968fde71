"""The diagnosis: one line for everything that a site should know before money depends on it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.moab_testbed import a_simulated_moab_site
from waldur_site_agent.backends import CheckStatus
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.simulator import Outage, SimulatedMam

DEPOSIT = Component(type="deposit", measured_unit="EUR", label="Deposit", accounting_type="limit")


def verdicts(
    mam: SimulatedMam, directory: Path, *components: Component, **settings: object
) -> dict[str, CheckStatus]:
    chosen = MoabSettings.model_validate({"lock_file": directory / "lock", **settings})
    known = {component.type: component for component in components or (DEPOSIT,)}
    backend = MoabBackend(chosen, known, runner=mam.runner())
    checks = list(backend.diagnose())
    assert all(check.detail for check in checks)
    assert all(check.remedy or check.verdict is CheckStatus.OK or ";" in check.detail
               for check in checks), checks  # fmt: skip
    return {check.name: check.verdict for check in checks if check.name != "user"}


def test_a_good_site_has_nothing_to_do(tmp_path: Path) -> None:
    found = verdicts(SimulatedMam(), tmp_path, default_account="root")
    assert set(found.values()) == {CheckStatus.OK}
    assert set(found) == {
        "component deposit",
        "lock file",
        "mam commands",
        "accounts",
        "withdrawals",
        "home directories",
    }


def test_components_are_looked_at(tmp_path: Path) -> None:
    cpu = Component(type="cpu", measured_unit="h", label="CPU", accounting_type="limit")
    found = verdicts(SimulatedMam(), tmp_path, cpu)
    assert found["component cpu"] is CheckStatus.WARNING
    assert found["component deposit"] is CheckStatus.FAILED
    usage = Component(type="deposit", measured_unit="EUR", label="D", accounting_type="usage")
    assert verdicts(SimulatedMam(), tmp_path, usage)["component deposit"] is CheckStatus.WARNING


def test_a_default_account_that_does_not_exist_is_a_warning(tmp_path: Path) -> None:
    found = verdicts(SimulatedMam(), tmp_path, default_account="hpc")
    assert found["default_account"] is CheckStatus.WARNING


def test_a_manager_that_is_away_has_failed(tmp_path: Path) -> None:
    mam = SimulatedMam()
    with mam.outage(Outage.REFUSED):
        found = verdicts(mam, tmp_path)
    assert found["accounts"] is CheckStatus.FAILED
    assert "withdrawals" not in found


def test_a_resource_whose_fund_was_taken_away_is_named(tmp_path: Path) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        resource = testbed.created(testbed.project(ada="ada01"), "Ocean", deposit=100)
        assert "funds" not in verdicts(testbed.mam, tmp_path)
        testbed.sync()
        testbed.mam.state.funds.clear()
        assert verdicts(testbed.mam, tmp_path)["funds"] is CheckStatus.WARNING
        testbed.forget()
        report = testbed.sync()
        assert not report.failed
        assert testbed.sandbox.customer.current(resource).limits == {"deposit": 100}


@pytest.mark.parametrize(
    "wrong",
    [
        {"default_account": "a b"},
        {"allocation_prefix": "-x"},
        {"deposited_after_withdrawal": "rises"},
        {"longest_job_days": 0},
        {"command_timeout_seconds": 0},
        {"homedir_umask": "0400"},
        {"qos_paused": "paused"},
    ],
)
def test_settings_that_cannot_work_are_refused_by_their_names(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MoabSettings.model_validate(wrong)


def test_a_deposit_in_waldurs_units_is_multiplied_by_the_factor(tmp_path: Path) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        testbed.components["deposit"] = {**testbed.components["deposit"], "unit_factor": 1000}
        resource = testbed.created(testbed.project(ada="ada01"), "Ocean", deposit=2.5)
        assert Decimal(2500) == testbed.mam.state.left_of(resource.backend_id)
