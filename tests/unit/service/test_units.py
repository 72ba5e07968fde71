"""The services that are installed are those in deploy/, under the names that sites have."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from waldur_site_agent.cli.install import Choices, logrotate, service_files, unit, unit_name
from waldur_site_agent.cli.main import main
from waldur_site_agent.config import load_configuration
from waldur_site_agent.service.session import MODE_NAMES

DEPLOY = Path(__file__).parents[3] / "deploy"
NAMES = {
    "order_process": "waldur-agent-order-process",
    "report": "waldur-agent-report",
    "membership_sync": "waldur-agent-membership-sync",
    "event_process": "waldur-agent-event-process",
    "all": "waldur-agent",
}
VARIANTS = [
    *((f"systemd/{name}.service", mode, Choices()) for mode, name in NAMES.items()),
    *(
        (f"systemd/{name}-legacy.service", mode, Choices(legacy=True))
        for mode, name in NAMES.items()
    ),
    ("systemd/least-privilege/waldur-agent.service", "all", Choices(user="waldur-agent")),
]


def install(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["install-services", *arguments])


def directives(text: str) -> dict[str, str]:
    lines = [line.partition("=") for line in text.splitlines() if "=" in line and line[0] != "#"]
    return {key: value for key, _, value in lines}


@pytest.mark.parametrize(("file", "mode", "choices"), VARIANTS, ids=[v[0] for v in VARIANTS])
def test_deploy_has_what_install_services_makes(file: str, mode: str, choices: Choices) -> None:
    assert unit(mode, choices) == (DEPLOY / file).read_text(encoding="utf-8")


def test_deploy_has_no_other_units() -> None:
    found = {str(path.relative_to(DEPLOY)) for path in (DEPLOY / "systemd").rglob("*.service")}
    assert found == {file for file, _, _ in VARIANTS}
    assert (DEPLOY / "logrotate").read_text(encoding="utf-8") == logrotate()


def test_every_mode_has_a_service_of_the_name_that_sites_know() -> None:
    assert {mode: unit_name(mode) for mode in MODE_NAMES} == NAMES


def test_the_service_of_all_modes_and_those_of_one_never_run_together() -> None:
    single = {f"{name}.service" for mode, name in NAMES.items() if mode != "all"}
    assert set(directives(unit("all", Choices()))["Conflicts"].split()) == single
    assert directives(unit("report", Choices()))["Conflicts"] == "waldur-agent.service"


def test_legacy_services_have_no_watchdog_and_write_a_log_file() -> None:
    found = directives(unit("report", Choices(legacy=True)))
    assert found["Type"] == "simple"
    assert "WatchdogSec" not in found
    assert ">>/var/log/waldur-site-agent/waldur-agent-report.log" in found["ExecStart"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_stop_signal_goes_to_the_agent_and_not_to_its_commands(*, legacy: bool) -> None:
    assert directives(unit("all", Choices(legacy=legacy)))["KillMode"] == "mixed"


def test_a_credential_is_handed_over_by_systemd() -> None:
    text = unit("all", Choices(credential=Path("/etc/waldur-site-agent/token")))
    assert directives(text)["LoadCredential"] == "token:/etc/waldur-site-agent/token"


def test_a_credential_is_read_where_systemd_puts_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789\n")
    file = tmp_path / "config.yaml"
    offering = {
        "name": "Cluster",
        "waldur_api_url": "https://waldur.example.com",
        "waldur_api_token_file": "${CREDENTIALS_DIRECTORY}/token",
        "waldur_offering_uuid": "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1",
    }
    file.write_text(yaml.safe_dump({"offerings": [offering]}))
    configuration, _ = load_configuration(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert configuration.offerings[0].token == "0123456789"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--user", "two words"), "two words"),
        (("--config-file", "relative.yaml"), "absolute path"),
        (("--config-file", "/etc/a;reboot"), "letters, digits"),
        (("--sudo-homes",), "add --user"),
        (("--legacy", "--credential", "/etc/token"), "has no credentials"),
    ],
)
def test_what_systemd_would_misunderstand_is_refused(arguments: tuple[str, ...], why: str) -> None:
    done = install("--print", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert why in done.stderr


def test_files_are_installed_and_local_changes_are_not_overwritten(tmp_path: Path) -> None:
    root = ("--root", str(tmp_path))
    done = install(*root, "--mode", "all", "--user", "waldur", "--sudo-homes")
    assert done.exit_code == 0, done.output
    unit_file = tmp_path / "etc/systemd/system/waldur-agent.service"
    rule = tmp_path / "etc/sudoers.d/waldur-site-agent"
    assert stat.S_IMODE(unit_file.stat().st_mode) == 0o644
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440
    assert "systemctl enable --now waldur-agent" in done.output
    unit_file.write_text("# mine\n")
    done = install(*root, "--mode", "all")
    assert (done.exit_code, unit_file.read_text()) == (1, "# mine\n")
    assert "DIFFERS" in done.output
    assert install(*root, "--mode", "all", "--force").exit_code == 0
    assert "# mine" not in unit_file.read_text()
    assert list(unit_file.parent.iterdir()) == [unit_file]


def test_print_shows_every_file_with_its_place_and_installs_none(tmp_path: Path) -> None:
    done = install("--print", "--root", str(tmp_path))
    assert done.exit_code == 0
    for file in service_files(list(MODE_NAMES), Choices()):
        assert f"# {file.path}\n" in done.stdout
    assert not list(tmp_path.iterdir())
