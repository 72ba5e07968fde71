"""How little a service may do, measured where systemd confines it."""

from __future__ import annotations

import json
import pwd
import re
from pathlib import Path

import pytest

from harness import eventually
from systemd.conftest import (
    CONFIGURATION,
    HOMES,
    LOG,
    PROGRAMS,
    RULE,
    RUN,
    USER,
    Services,
    Unit,
    run,
)
from waldur_site_agent.service.session import MODE_NAMES

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
TOKEN = CONFIGURATION / "token"
VARIANTS = {
    "root": (),
    "ordinary user": ("--user", USER),
    "ordinary user with sudo": ("--user", USER, "--sudo-homes"),
    "legacy": ("--legacy",),
}
CHOWN, DAC_OVERRIDE, FOWNER, FSETID = 1 << 0, 1 << 1, 1 << 3, 1 << 4


def in_place_of(unit: Unit, *argv: str | Path) -> int:
    """The exit code of a command with the user, the capabilities and the mounts of the service."""
    ids = run("stat", "--format=%u %g", f"/proc/{unit.pid}").stdout.split()
    capabilities = int(unit.status_of_process("CapBnd"), 16)
    names = ("chown", "dac_override", "fowner", "fsetid")
    bounding = "-all" + "".join(f",+{name}" for name in names if capabilities)
    confined: tuple[str, ...] = ("setpriv", "--reuid", ids[0], "--regid", ids[1], "--clear-groups")
    confined += ("--inh-caps=-all", f"--bounding-set={bounding}", "--no-new-privs", "--")
    entered = ("nsenter", "--target", str(unit.pid), "--mount", "--", *confined, *argv)
    return run(*entered, check=False).returncode


@pytest.mark.guarantee("security: The services")
def test_an_ordinary_user_serves_an_offering_without_any_privilege(
    services: Services, ordinary_user: str
) -> None:
    unit = services.install("--user", ordinary_user, mode="all")
    services.write(
        {"journal": f"{LOG}/journal.jsonl", "health_file": f"{RUN}/health-{{mode}}.json"}
    )
    order = services.testbed.order(services.testbed.project(ada="ada01"))
    unit.systemctl("start")
    services.wait_for(order)
    eventually(lambda: services.testbed.members(order) == {"ada01"}, "a member")
    sets = ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")
    assert {int(unit.status_of_process(name), 16) for name in sets} == {0}
    assert unit.status_of_process("NoNewPrivs") == "1"
    assert unit.status_of_process("Seccomp") == "2"
    assert "CreateResource" in {entry["action"] for entry in services.entries()}
    assert "waldur-site-agent-slurm-" in " ".join(path.name for path in RUN.iterdir())
    for path in (RUN, LOG, *RUN.iterdir(), *LOG.iterdir()):
        assert path.owner() == ordinary_user
        assert path.stat().st_mode & 0o007 == 0 or path.suffix == ".lock", path
    for own in (LOG, RUN):
        assert in_place_of(unit, "touch", own / "new") == 0
    for place in ("/etc", "/usr", "/var", "/home", "/root", "/srv", CONFIGURATION):
        assert in_place_of(unit, "touch", f"{place}/new") != 0
    assert in_place_of(unit, "test", "-e", "/home") == 0


@pytest.mark.guarantee("security: The services")
def test_root_keeps_four_capabilities(services: Services) -> None:
    unit = services.install()
    unit.systemctl("start")
    assert int(unit.status_of_process("CapEff"), 16) == CHOWN | DAC_OVERRIDE | FOWNER | FSETID
    assert unit.status_of_process("NoNewPrivs") == "1"
    assert unit.status_of_process("Seccomp") == "2"
    for place in ("/etc", "/usr", CONFIGURATION):
        assert in_place_of(unit, "touch", f"{place}/new") != 0
    assert in_place_of(unit, "mount", "-t", "tmpfs", "none", "/mnt") != 0


@pytest.mark.guarantee("security: The services")
@pytest.mark.parametrize("variant", ["root", "ordinary user"])
def test_the_token_is_a_credential_that_only_the_service_can_read(
    services: Services, ordinary_user: str, variant: str
) -> None:
    unit = services.install(*VARIANTS[variant], "--credential", str(TOKEN), mode="all")
    token = services.testbed.sandbox.token
    services.write(waldur_api_token=..., waldur_api_token_file="${CREDENTIALS_DIRECTORY}/token")
    (CONFIGURATION / "environment").write_text(
        "WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES=0.01\n"
    )
    TOKEN.write_text(f"{token}\n")
    TOKEN.chmod(0o600)
    order = services.testbed.order(services.testbed.project(ada="ada01"))
    unit.systemctl("start")
    services.wait_for(order)
    assert run("cat", TOKEN, user=ordinary_user, check=False).returncode != 0
    found = Path(f"/run/credentials/{unit.name}/token")
    assert run("cat", found, user="daemon", check=False).returncode != 0
    assert in_place_of(unit, "cat", found) == 0
    for place in ("environ", "cmdline"):
        assert token not in Path(f"/proc/{unit.pid}/{place}").read_text()
    assert token not in run("systemctl", "show", unit.name).stdout + unit.log
    # manual commands read the same configuration
    command = ("env", f"CREDENTIALS_DIRECTORY={CONFIGURATION}", PROGRAMS / "waldur-site-agent")
    run(*command, "diagnose", "-c", services.site.file)


@pytest.mark.guarantee("security: The services")
def test_home_directories_through_sudo_and_nothing_else_through_sudo(
    services: Services, ordinary_user: str, user_without_home: pwd.struct_passwd
) -> None:
    unit = services.install("--user", ordinary_user, "--sudo-homes", mode="all")
    run("visudo", "--check", f"--file={RULE}")
    services.write(
        backend_settings={
            "homedir_sudo": True,
            "enable_user_homedir_account_creation": True,
            "require_system_user": True,
        }
    )
    testbed = services.testbed
    order = testbed.order(testbed.project(ada=user_without_home.pw_name))
    unit.systemctl("start")
    services.wait_for(order)
    home = Path(user_without_home.pw_dir)
    eventually(home.exists, "a home directory")
    eventually(lambda: home.owner() == user_without_home.pw_name, "its owner")
    assert home.stat().st_mode & 0o777 == 0o700
    helper = ("sudo", "--non-interactive", "/usr/sbin/mkhomedir_helper")
    for refused in (
        (*helper, user_without_home.pw_name, "0077", "/etc"),
        (*helper, user_without_home.pw_name, "0000"),
        (*helper, "root;id", "0077"),
        ("sudo", "--non-interactive", "/bin/true"),
    ):
        assert run(*refused, user=ordinary_user, check=False).returncode != 0, refused
    assert run(*helper, user_without_home.pw_name, "0077", user=ordinary_user).returncode == 0


@pytest.mark.guarantee("security: The services")
def test_root_makes_home_directories_from_within_its_confinement(
    services: Services, user_without_home: pwd.struct_passwd
) -> None:
    services.write(
        backend_settings={
            "enable_user_homedir_account_creation": True,
            "require_system_user": True,
        }
    )
    unit = services.install()
    services.testbed.order(services.testbed.project(ada=user_without_home.pw_name))
    unit.systemctl("start")
    home = HOMES / user_without_home.pw_name
    eventually(lambda: home.exists() and home.owner() == home.name, "a home directory")
    assert home.stat().st_mode & 0o777 == 0o700


def level_of(unit: Unit) -> str:
    """What ``systemd-analyze security`` says of a service: from 0, the best, to 10."""
    found = run("systemd-analyze", "security", "--no-pager", unit.name, check=False)
    (level,) = re.findall(r"exposure level for \S+: (\d+\.\d)", found.stdout)
    return str(level)


@pytest.mark.guarantee("security: The services")
@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_exposure_is_what_the_page_says(services: Services, variant: str) -> None:
    rows = re.findall(
        r"^\| ([\w ]+) \| .* \| [\d.]+ \| (\d+\.\d) \|$", PAGE.read_text(), re.MULTILINE
    )
    unit = services.install(*VARIANTS[variant], mode="all")
    level = level_of(unit)
    if run("systemd-analyze", "--version").stdout.startswith("systemd 257 "):
        assert dict(rows)[variant] == level
    else:  # other versions know other directives and weigh them differently
        assert abs(float(dict(rows)[variant]) - float(level)) < 1


@pytest.mark.guarantee("security: The services")
@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("variant", ["root", "ordinary user"])
def test_the_page_has_a_reason_for_everything_that_is_open(
    services: Services, variant: str
) -> None:
    unit = services.install(*VARIANTS[variant], mode="all")
    analyze = ("systemd-analyze", "security", "--no-pager", "--json=short")
    found = json.loads(run(*analyze, unit.name, check=False).stdout)
    open_ = {each["name"].partition("=")[0] for each in found if float(each["exposure"] or 0)}
    cells = re.findall(r"^\| (`\w+=`[^|]*) \| ", PAGE.read_text(), re.MULTILINE)
    explained = set(re.findall(r"`(\w+)=`", " ".join(cells)))
    assert open_ <= explained


@pytest.mark.guarantee("security: The services")
@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_mode_of_a_variant_is_confined_alike(services: Services, variant: str) -> None:
    levels = {level_of(services.install(*VARIANTS[variant], mode=mode)) for mode in MODE_NAMES}
    assert len(levels) == 1
