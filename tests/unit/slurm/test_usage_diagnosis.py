"""A diagnosis says what would be counted otherwise than a site expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unit.slurm.simulated_jobs import backend_on, simulated
from waldur_site_agent.backends import Check, CheckStatus
from waldur_site_agent_slurm.simulator import SimulatedSlurm

ALWAYS = "cpu,mem,energy,node,billing,fs/disk,vmem,pages"


@pytest.fixture
def slurm() -> SimulatedSlurm:
    return simulated()


def diagnosis(slurm: SimulatedSlurm, directory: Path, *components: str) -> dict[str, Check]:
    backend = backend_on(slurm, components, lock_file=directory / "lock")
    return {check.name: check for check in backend.diagnose()}


@pytest.mark.parametrize(
    ("stored", "component", "verdict", "words"),
    [
        ("gres/gpu", "gres/gpu", CheckStatus.OK, ""),
        ("gres/gpu:a100", "gres/gpu:A100", CheckStatus.OK, ""),
        (
            "gres/gpu:a100,gres/gpu:v100",
            "gres/gpu",
            CheckStatus.WARNING,
            "gres/gpu:a100, gres/gpu:v1",
        ),
        ("gres/gpu", "gres/gpu:a100", CheckStatus.FAILED, "usage is zero"),
        ("", "gres/gpu", CheckStatus.FAILED, "usage is zero"),
    ],
)
def test_what_slurmctld_stores_counts_and_not_what_slurmdbd_has_ever_known(
    slurm: SimulatedSlurm,
    tmp_path: Path,
    stored: str,
    component: str,
    verdict: CheckStatus,
    words: str,
) -> None:
    with slurm.change() as state:
        state.tres += ["gres/gpu:a100"]
        state.configuration["AccountingStorageTRES"] = f"{ALWAYS},{stored}".rstrip(",")
    check = diagnosis(slurm, tmp_path, component)[f"TRES {component}"]
    assert check.verdict is verdict
    assert words in check.detail
    assert ("AccountingStorageTRES" in check.remedy) is (verdict is not CheckStatus.OK)


def test_every_qos_that_makes_usage_count_otherwise_for_limits_is_named(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    assert diagnosis(slurm, tmp_path, "cpu")["UsageFactor"].verdict is CheckStatus.OK
    with slurm.change() as state:
        state.qos += ["half", "a|free"]
        state.usage_factors |= {"half": 0.5, "a|free": 0}
    found = diagnosis(slurm, tmp_path, "cpu")
    checks = {name: check for name, check in found.items() if name.startswith("UsageFactor")}
    assert {name: check.verdict for name, check in checks.items()} == {
        "UsageFactor of QOS half": CheckStatus.WARNING,
        "UsageFactor of QOS a|free": CheckStatus.WARNING,
    }
    assert "0.500000" in checks["UsageFactor of QOS half"].detail


BUDGETS = {"periodic_limits": {"enabled": True}}
ON_QOS = {
    **BUDGETS,
    "qos_management": {"enabled": True, "skip_qos_swap": True, "apply_limits_to_qos": True},
}


@pytest.mark.guarantee("budgets: Setup")
@pytest.mark.parametrize(
    ("key", "value", "settings", "check", "verdict"),
    [
        ("PriorityType", "priority/basic", BUDGETS, "PriorityType", CheckStatus.FAILED),
        ("PriorityType", "priority/multifactor", BUDGETS, "PriorityType", CheckStatus.OK),
        ("PriorityWeightFairShare", "0", BUDGETS, "fairshare", CheckStatus.WARNING),
        ("PriorityWeightFairShare", "1000", BUDGETS, "fairshare", CheckStatus.OK),
        ("PriorityDecayHalfLife", "7-00:00:00", BUDGETS, "decay of usage", CheckStatus.WARNING),
        ("PriorityDecayHalfLife", "7-00:00:00", ON_QOS, "decay of usage", CheckStatus.OK),
        ("PriorityDecayHalfLife", "00:00:00", BUDGETS, "decay of usage", CheckStatus.OK),
        ("PriorityUsageResetPeriod", "MONTHLY", BUDGETS, "resets by Slurm itself",
         CheckStatus.WARNING),
        ("PriorityUsageResetPeriod", "NONE", BUDGETS, "resets by Slurm itself", CheckStatus.OK),
    ],
)  # fmt: skip
def test_the_diagnosis_says_what_budgets_lack(
    slurm: SimulatedSlurm,
    tmp_path: Path,
    key: str,
    value: str,
    settings: dict[str, Any],
    check: str,
    verdict: CheckStatus,
) -> None:
    with slurm.change() as state:
        state.configuration[key] = value
    backend = backend_on(slurm, ("cpu",), lock_file=tmp_path / "lock", **settings)
    found = {each.name: each for each in backend.diagnose()}
    assert verdict is found[check].verdict
    assert bool(found[check].remedy) is (verdict is not CheckStatus.OK)
    assert "usage that counts for limits" not in found
    assert found["permission to reset usage"].verdict is CheckStatus.OK  # by root
