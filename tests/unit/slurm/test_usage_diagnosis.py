"""A diagnosis says what would be counted otherwise than a site expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.slurm.simulated_jobs import backend_on, simulated
from waldur_site_agent.backends import Check, Verdict
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
        ("gres/gpu", "gres/gpu", Verdict.OK, ""),
        ("gres/gpu:a100", "gres/gpu:A100", Verdict.OK, ""),
        ("gres/gpu:a100,gres/gpu:v100", "gres/gpu", Verdict.WARNING, "gres/gpu:a100, gres/gpu:v1"),
        ("gres/gpu", "gres/gpu:a100", Verdict.FAILED, "usage is zero"),
        ("", "gres/gpu", Verdict.FAILED, "usage is zero"),
    ],
)
def test_what_slurmctld_stores_counts_and_not_what_slurmdbd_has_ever_known(
    slurm: SimulatedSlurm,
    tmp_path: Path,
    stored: str,
    component: str,
    verdict: Verdict,
    words: str,
) -> None:
    with slurm.change() as state:
        state.tres += ["gres/gpu:a100"]
        state.configuration["AccountingStorageTRES"] = f"{ALWAYS},{stored}".rstrip(",")
    check = diagnosis(slurm, tmp_path, component)[f"TRES {component}"]
    assert check.verdict is verdict
    assert words in check.detail
    assert ("AccountingStorageTRES" in check.remedy) is (verdict is not Verdict.OK)


def test_every_qos_that_makes_usage_count_otherwise_for_limits_is_named(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    assert diagnosis(slurm, tmp_path, "cpu")["UsageFactor"].verdict is Verdict.OK
    with slurm.change() as state:
        state.qos += ["half", "a|free"]
        state.usage_factors |= {"half": 0.5, "a|free": 0}
    found = diagnosis(slurm, tmp_path, "cpu")
    checks = {name: check for name, check in found.items() if name.startswith("UsageFactor")}
    assert {name: check.verdict for name, check in checks.items()} == {
        "UsageFactor of QOS half": Verdict.WARNING,
        "UsageFactor of QOS a|free": Verdict.WARNING,
    }
    assert "0.500000" in checks["UsageFactor of QOS half"].detail
