"""A budget that real jobs use up: told once, and shown to the user on the login node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import Installation, SimulatedSite
from waldur_site_agent_budget import main as waldur_budget

if TYPE_CHECKING:
    from integration.conftest import RealSlurm

pytestmark = pytest.mark.slurm

MINUTES = {
    "cpu": {"label": "CPU", "measured_unit": "min", "unit_factor": 1, "accounting_type": "limit"}
}


@pytest.mark.guarantee("budget-notices: Once")
def test_a_used_up_budget_is_told_once_and_shown(
    real_slurm: RealSlurm,
    prefix: str,
    testbed: SimulatedSite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told, mail, file = tmp_path / "told", tmp_path / "mail", tmp_path / "budgets.json"
    mail.write_text(f"#!/bin/sh\ncat >>{told}\necho >>{told}\n")
    mail.chmod(0o755)
    settings = {
        "customer_prefix": f"{prefix}c_",
        "project_prefix": f"{prefix}p_",
        "allocation_prefix": f"{prefix}a_",
    }
    site = Installation(testbed, tmp_path, settings, {"SLURM_CONF": str(real_slurm.slurm_conf)})
    changes: dict[str, Any] = {
        "reporting_backend": "slurm",
        "backend_components": MINUTES,
        "budgets": {"command": [str(mail)], "file": str(file)},
    }
    site.write_offerings(changes, timezone="UTC")
    ada = real_slurm.users[0]
    order = testbed.order(testbed.project(ada=ada), "Ocean", cpu=10_000)
    assert site.run("-m", "order_process", "--once").code == 0
    account = testbed.resource(order).backend_id

    def report() -> list[dict[str, Any]]:
        done = site.run("-m", "report", "--once")
        assert done.code == 0, done.err
        return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    assert report() == []
    job = real_slurm.submit(ada, account, "-n", "32", "--wrap", "sleep 3")
    real_slurm.wait_until(lambda: real_slurm.run("squeue", "-h", "-j", job).stdout.strip() == "")
    real_slurm.sacctmgr("modify", "account", "where", f"name={account}", "set", "GrpTRESMins=cpu=1")
    (notice,) = report()
    assert (notice["account"], notice["percent"], notice["limit"]) == (account, 100, 1.0)
    assert notice["used"] >= 1
    assert len(report()) == 1

    monkeypatch.setenv("SLURM_CONF", str(real_slurm.slurm_conf))
    monkeypatch.setattr("getpass.getuser", lambda: ada)
    assert waldur_budget.main(["--file", str(file)]) == 0
    assert f"sbatch -A {account}" in capsys.readouterr().out
