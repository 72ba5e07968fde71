"""The services without root, and with as little of root as works; on a real Slurm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.deploy.conftest import Confined
from waldur_site_agent.cli.install import Choices, sudoers

pytestmark = pytest.mark.slurm


@pytest.mark.guarantee("security: The services")
def test_an_operator_of_slurm_serves_an_offering_without_any_privilege(
    confined: Confined, real_slurm: Any, prefix: str
) -> None:
    testbed = confined.site.testbed
    confined.write(enable_user_homedir_account_creation=False)
    order = testbed.order(testbed.project(ada=real_slurm.users[0], bob=real_slurm.users[1]))
    diagnosis = confined.run("strict", "waldur_site_diagnostics")
    assert f"permission to write: {confined.user} has AdminLevel Operator" in diagnosis.stdout
    assert "/run/waldur-site-agent/waldur-site-agent-slurm-wsatest.lock" in diagnosis.stdout
    for mode in ("order_process", "membership_sync"):
        done = confined.run("strict", "waldur_site_agent", "-m", mode, "--once")
        assert done.returncode == 0, done.stdout + done.stderr
    assert testbed.state(order) == "done"
    rows = real_slurm.associations(f"{prefix}a_")
    assert {row.split("|")[1] for row in rows} == {"", *real_slurm.users[:2]}
    locks = {path.name for path in (confined.directory / "run").iterdir()}
    assert "waldur-site-agent-slurm-wsatest.lock" in locks
    assert {path.owner() for path in (confined.directory / "run").iterdir()} == {confined.user}
    entries = [json.loads(line) for line in confined.journal.read_text().splitlines()]
    assert "CreateResource" in {entry["action"] for entry in entries}
    # somebody else can neither read the token nor take the agent's locks
    other = real_slurm.users[2]
    assert real_slurm.run("cat", str(confined.site.file), user=other).returncode != 0


def test_a_user_who_is_no_operator_is_told_what_to_do(confined: Confined, real_slurm: Any) -> None:
    real_slurm.sacctmgr("modify", "user", f"name={confined.user}", "set", "adminlevel=none")
    confined.write(enable_user_homedir_account_creation=False)
    diagnosis = confined.run("strict", "waldur_site_diagnostics")
    assert diagnosis.returncode == 1
    assert f"sacctmgr modify user where name={confined.user} set adminlevel=operator" in (
        diagnosis.stdout
    )
    testbed = confined.site.testbed
    order = testbed.order(testbed.project(ada=real_slurm.users[0]))
    assert confined.run("strict", "waldur_site_agent", "--once").returncode == 1
    assert testbed.state(order) == "executing"


@pytest.mark.guarantee("security: The services")
def test_root_with_few_capabilities_makes_home_directories(
    confined: Confined, user_without_home: Callable[[], str], real_slurm: Any
) -> None:
    name = user_without_home()
    confined.write()
    testbed = confined.site.testbed
    testbed.order(testbed.project(ada=name))
    for mode in ("order_process", "membership_sync"):
        done = confined.run("root", "waldur_site_agent", "-m", mode, "--once")
        assert done.returncode == 0, done.stdout + done.stderr
    home = real_slurm.directory / "homes" / name
    assert (home.owner(), home.stat().st_mode & 0o777) == (name, 0o700)


@pytest.mark.guarantee("security: Without root")
@pytest.mark.usefixtures("systemd_tools")
def test_an_ordinary_user_makes_home_directories_through_a_rule_that_allows_nothing_else(
    confined: Confined, user_without_home: Callable[[], str], real_slurm: Any
) -> None:
    name = user_without_home()
    rule = Path("/etc/sudoers.d") / confined.user
    rule.write_text(sudoers(Choices(user=confined.user, sudo_homes=True)))
    rule.chmod(0o440)
    try:
        subprocess.run(["/usr/sbin/visudo", "-cf", str(rule)], check=True, capture_output=True)
        confined.write(homedir_sudo=True)
        testbed = confined.site.testbed
        testbed.order(testbed.project(ada=name))
        for mode in ("order_process", "membership_sync"):
            done = confined.run("sudo", "waldur_site_agent", "-m", mode, "--once")
            assert done.returncode == 0, done.stdout + done.stderr
        assert (real_slurm.directory / "homes" / name).owner() == name
        helper = ("sudo", "-n", "/usr/sbin/mkhomedir_helper")
        for refused in (
            (*helper, name, "0077", "/etc"),  # would copy /etc into somebody's home
            (*helper, name, "0000"),
            (*helper, f"{name} 0077 /etc", "0077"),
            (*helper,),
            ("sudo", "-n", "/bin/true"),
        ):
            assert confined.start("sudo", *refused).returncode != 0, refused
    finally:
        rule.unlink()
