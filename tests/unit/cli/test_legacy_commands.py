"""The commands of version 1, as scripts, probes and units call them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import Installation
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE
from waldur_site_agent.cli import aliases
from waldur_site_agent.config import Configuration
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.service.health import default_health_file

LAST = BillingMonth.of(datetime.now(UTC), UTC).previous


@pytest.mark.parametrize("name", aliases.__all__)
def test_every_command_takes_a_mode_and_a_file_or_says_what_to_use_instead(name: str) -> None:
    command = getattr(aliases, name)
    result = CliRunner().invoke(command, ["-m", "report", "-c", "missing.yaml"])
    assert result.exit_code == 2
    assert "No such option" not in result.output
    assert any(
        word in result.output
        for word in ("missing.yaml: no such file", "is not part of", "Missing")
    )


@pytest.mark.parametrize("command", ["waldur_site_diagnostics", "waldur_site_load_components"])
def test_a_mode_changes_nothing_about_a_command_without_modes(
    installation: Installation, command: str
) -> None:
    installation.write(membership_sync_backend="slurm")
    plain = installation.run(command=command)
    assert installation.run("-m", "event_process", command=command).out == plain.out


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("waldur_site_export_plugin_catalogue", "waldur-site-agent config schema"),
        ("waldur_site_test_order", "waldur-site-agent plan"),
    ],
)
def test_a_command_that_is_gone_says_what_to_use(
    installation: Installation, name: str, way_out: str
) -> None:
    done = installation.run("--template", "create", command=name)
    assert (done.code, way_out in done.err) == (2, True)


def healthy(file: Path, **changes: Any) -> Path:
    worker = {"mode": "report", "offering": "A", "status": "ok", "doing": "resting", "trouble": ""}
    report = {"status": "ok", "workers": [worker], "written": time.time()} | changes
    file.write_text(json.dumps(report))
    return file


PROBE = "waldur_site_healthz"


def test_the_probe_is_content_when_the_agent_is_and_waldur_answers(
    installation: Installation, tmp_path: Path
) -> None:
    file = healthy(tmp_path / "health.json")
    installation.write_offerings({}, health_file=str(file))
    assert installation.run(command=PROBE).code == 0


@pytest.mark.parametrize(
    ("age", "status", "options", "code"),
    [
        (200, "ok", ("--max-age", "100000"), 0),
        (200, "ok", ("--max-age", "100"), 1),
        (400, "ok", (), 1),
        (0, "stuck", (), 1),
        (0, "failing", (), 0),
    ],
)
def test_the_probe_fails_when_the_agent_is_stuck_or_silent(
    installation: Installation,
    tmp_path: Path,
    age: float,
    status: str,
    options: tuple[str, ...],
    code: int,
) -> None:
    installation.write()
    file = healthy(tmp_path / "health.json", status=status, written=time.time() - age)
    options = (*options, "--liveness-only", "--heartbeat-path", str(file))
    assert installation.run(*options, command=PROBE).code == code


def test_the_probe_fails_when_no_waldur_answers(installation: Installation, tmp_path: Path) -> None:
    file = healthy(tmp_path / "health.json")
    installation.write_offerings({"waldur_api_token": "wrong"}, health_file=str(file))
    done = installation.run(command=PROBE)
    assert (done.code, "Test cluster: " in done.err) == (1, True)
    assert installation.run("--liveness-only", command=PROBE).code == 0


def configured(**changes: Any) -> Configuration:
    offering = {
        "name": "A",
        "waldur_api_url": "https://waldur.example.com",
        "waldur_offering_uuid": "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1",
    }
    return Configuration.model_validate({"offerings": [offering]} | changes)


def test_the_health_file_is_that_of_the_file_then_of_the_environment() -> None:
    environ = {"WALDUR_SITE_AGENT_HEARTBEAT_PATH": "/run/beat"}
    assert default_health_file(configured(health_file="/run/x"), environ) == "/run/x"
    assert default_health_file(configured(), environ) == "/run/beat"


def test_without_a_setting_the_health_file_is_beside_the_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DIRECTORY_VARIABLE)
    monkeypatch.setattr("waldur_site_agent.backends.locking.OWN_DIRECTORY", tmp_path)
    first = default_health_file(configured(), {})
    assert Path(first).parent == tmp_path
    assert first == default_health_file(configured(), {})


def test_without_a_directory_of_its_own_the_agent_writes_no_health_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DIRECTORY_VARIABLE)
    monkeypatch.setattr("waldur_site_agent.backends.locking.OWN_DIRECTORY", tmp_path / "absent")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "waldur-site-agent-1000").mkdir()
    assert default_health_file(configured(), {}) == ""


def test_orders_are_processed_by_a_file_as_version_1_had_it(installation: Installation) -> None:
    installation.backend_settings |= {
        "usage_tres_source": "requested",
        "default_homedir_umask": "0077",
        "soft_delete": False,
    }
    installation.write(backend_type="slurm", stomp_membership_sync_enabled=None)
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    done = installation.run("-m", "order_process", "--once")
    assert (done.code, testbed.state(order)) == (0, "done")


def test_at_start_every_key_and_variable_without_effect_is_named_once(
    installation: Installation,
) -> None:
    other = {
        "name": "Other",
        "waldur_offering_uuid": "1" * 32,
        "order_processing_backend": "",
        "reporting_backend": "slurm",
    }
    keys = {"omit_anomalous_usage_components": True}
    installation.write_offerings(keys, other | keys, reporting_periods=2)
    installation.variables["WALDUR_SITE_AGENT_STOMP_UNHEALTHY_AFTER_MINUTES"] = "15"
    logged = installation.run("--once").err
    for name in (
        "omit_anomalous_usage_components",
        "reporting_periods",
        "WALDUR_SITE_AGENT_STOMP_UNHEALTHY_AFTER_MINUTES",
    ):
        assert logged.count(name) == 1, logged


LOAD = "waldur_site_load_historical_usage"


@pytest.fixture
def used(installation: Installation) -> str:
    """An account that used 2 units in the last month."""
    testbed = installation.testbed
    installation.write_offerings({"reporting_backend": "slurm"}, timezone="UTC")
    start = LAST.period(UTC).start
    made = testbed.created(testbed.project(ada="ada01"), "Ocean")
    testbed.sandbox.customer.world.put(replace(made, created=start - timedelta(days=1)))
    begin = start + timedelta(days=2)
    tres = {"cpu": 1000}
    testbed.slurm.run_job("ada01", made.backend_id, tres, begin, begin + timedelta(hours=2))
    testbed.forget()
    return str(made.backend_id)


def load(installation: Installation, *options: str, token: str = "") -> Any:
    first = LAST.period(UTC).start.date()
    return installation.run(
        *("-o", str(installation.testbed.sandbox.offering.uuid)),
        *("-t", token or installation.testbed.sandbox.token),
        *("-s", str(first), "-e", str(first + timedelta(days=20)), "--no-staff-check"),
        *options,
        command=LOAD,
    )


def test_past_usage_is_loaded_with_the_options_of_version_1(
    installation: Installation, used: str
) -> None:
    planned = load(installation, "--dry-run")
    assert (planned.code, used in planned.out) == (0, True)
    assert "is up to date" in load(installation, "--resource-backend-id", "another").out
    done = load(installation, "--resource-backend-id", used)
    assert (done.code, used in done.out) == (0, True)
    assert "is up to date" in load(installation).out


def test_past_usage_is_loaded_with_the_token_of_the_command_line(
    installation: Installation, used: str
) -> None:
    done = load(installation, token="not-a-token-of-anybody")
    assert done.code == 1
    assert used not in done.out
    assert "not-a-token-of-anybody" not in done.out + done.err


@pytest.mark.parametrize("option", ["--skip-user-usage", "--reconcile-stale"])
def test_an_option_that_would_do_something_else_is_refused(
    installation: Installation, used: str, option: str
) -> None:
    done = load(installation, option)
    assert (done.code, used in done.out) == (2, False)
    assert f"{option} is not supported: " in done.err


ACCOUNT = "waldur_site_diagnose_slurm_account"


def test_an_account_that_agrees_with_waldur_is_ok(installation: Installation) -> None:
    installation.write(membership_sync_backend="slurm")
    testbed = installation.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10, mem=2)
    done = installation.run(resource.backend_id, "--verbose", command=ACCOUNT)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{resource.backend_id}: ok (offering Test cluster)\n")
    assert "  limit of cpu: 600000\n" in done.out


def test_an_account_with_another_limit_is_named_with_the_way_to_mend_it(
    installation: Installation,
) -> None:
    installation.write(membership_sync_backend="slurm")
    testbed = installation.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10, mem=2)
    testbed.sandbox.customer.edit(resource, limits={"cpu": 12, "mem": 2}, paused=True)
    done = installation.run(resource.backend_id, "--json", command=ACCOUNT)
    assert done.code == 1
    found = json.loads(done.out)
    differing = {each["field"]: each for each in found["comparisons"] if each["status"] != "ok"}
    assert found["overall_status"] == "mismatch"
    assert set(differing) == {"access", "limit of cpu"}
    cpu = differing["limit of cpu"]
    assert (cpu["actual"], cpu["expected"], cpu["waldur_value"]) == ("600000", "720000", "12")
    assert (
        'waldur-site-agent limits sync --to backend --offering "Test cluster"'
        in (found["fix_commands"])
    )


def test_an_account_that_is_missing_is_said_to_be(installation: Installation) -> None:
    installation.write(membership_sync_backend="slurm")
    done = installation.run("nobody", "--json", command=ACCOUNT)
    found = json.loads(done.out)
    assert done.code == 1
    assert (found["overall_status"], found["slurm_info"]) == ("missing", None)
