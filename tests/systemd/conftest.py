"""The agent's services under a real systemd: in the machine that ``make test-systemd`` boots."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import Installation, SimulatedSite, eventually, patience
from harness.processes import StalledWrites
from harness.testbed import SETTINGS
from integration.not_run import note_missing
from waldur_site_agent.config.starter import environment_line
from waldur_site_agent_slurm.simulator import SimulatedSlurm, write_executables

PROGRAMS = Path("/opt/waldur-site-agent/bin")
CONFIGURATION = Path("/etc/waldur-site-agent")
UNITS = Path("/etc/systemd/system")
RUN, LOG = Path("/run/waldur-site-agent"), Path("/var/log/waldur-site-agent")
RULE = Path("/etc/sudoers.d/waldur-site-agent")
CLUSTER = Path("/srv/cluster")
HOMES = Path("/srv/homes")
USER = "waldur-agent"
OFTEN = {
    "WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.02",
    "WALDUR_SITE_AGENT_MEMBERSHIP_SYNC_PERIOD_MINUTES": "0.05",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.systemd)


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> None:
    """Refuse to touch the services of any other machine."""
    if os.environ.get("container") != "wsa":  # noqa: SIM112 - systemd spells it so
        reason = "they run in the machine that `make test-systemd` boots"
        note_missing(request.config, "a real systemd", reason)
        pytest.skip(reason)


def run(*argv: str | Path, user: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine, as another user if one is named."""
    command = ["runuser", "-u", user, "--", *argv] if user else list(argv)
    done = subprocess.run(
        command,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(),
    )
    if check:
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done


@dataclass
class Unit:
    """A service of the agent."""

    name: str
    cursor: str

    def systemctl(
        self, verb: str, *options: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run systemctl on the unit."""
        return run("systemctl", verb, *options, self.name, check=check)

    def __getitem__(self, key: str) -> str:
        """A property that ``systemctl show`` has."""
        return run("systemctl", "show", "--value", "--property", key, self.name).stdout.strip()

    @property
    def pid(self) -> int:
        """The main process."""
        return int(self["MainPID"])

    @property
    def log(self) -> str:
        """What it has written to the journal in this test."""
        words = ("--output=cat", "--no-pager", "--unit", self.name, "--after-cursor", self.cursor)
        return run("journalctl", *words).stdout

    def is_(self, state: str) -> bool:
        """Whether that is its ActiveState."""
        return self["ActiveState"] == state

    def status_of_process(self, key: str) -> str:
        """A line of /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{key}:"))

    def drop_in(self, text: str) -> None:
        """Change the unit as the documentation says, by ``systemctl edit``."""
        directory = UNITS / f"{self.name}.d"
        directory.mkdir(exist_ok=True)
        number = len(list(directory.iterdir()))
        (directory / f"{number:02}.conf").write_text(text)
        run("systemctl", "daemon-reload")


@dataclass
class Services:
    """The agent, installed for systemd, between a sandbox and a simulated cluster."""

    site: Installation
    cursor: str
    user: str = "root"
    environment: dict[str, str] = field(default_factory=lambda: dict(OFTEN))

    @property
    def testbed(self) -> SimulatedSite:
        """Both sides."""
        return self.site.testbed

    def unit(self, mode: str = "all") -> Unit:
        """The service of a mode."""
        name = "waldur-agent" if mode == "all" else f"waldur-agent-{mode.replace('_', '-')}"
        return Unit(f"{name}.service", self.cursor)

    def install(self, *options: str, mode: str = "") -> Unit:
        """Run ``install-services``; return the unit of the mode, or that of all."""
        words = list(options) + (["--mode", mode] if mode else [])
        run(PROGRAMS / "waldur-site-agent", "install-services", *words)
        if USER in options:
            self.user = USER
            self._give_to_the_user()
        run("systemctl", "daemon-reload")
        unit = self.unit(mode or "all")
        if "ProtectSystem=strict" in (UNITS / unit.name).read_text():
            # a real cluster is behind sockets, this one is in a file
            unit.drop_in(f"[Service]\nReadWritePaths={CLUSTER}\n")
        return unit

    def write(self, top_level: dict[str, Any] | None = None, **changes: Any) -> None:
        """Write the configuration, with changes to its only offering."""
        offering = {
            "waldur_api_token": "${WALDUR_API_TOKEN}",
            "membership_sync_backend": "slurm",
            "reporting_backend": "slurm",
            "username_management_backend": "base",
            "backend_settings": self.site.backend_settings | changes.pop("backend_settings", {}),
        }
        self.site.write_offerings(offering | changes, **(top_level or {}))
        lines = environment_line(self.testbed.sandbox.token)
        lines += "".join(f"{name}={value}\n" for name, value in self.environment.items())
        (CONFIGURATION / "environment").write_text(lines)
        (CONFIGURATION / "environment").chmod(0o640)
        self.site.file.chmod(0o640)
        if self.user != "root":
            self._give_to_the_user()

    def _give_to_the_user(self) -> None:
        for path in (CONFIGURATION, *CONFIGURATION.iterdir()):
            shutil.chown(path, "root", USER)
        for path in (CLUSTER, *CLUSTER.iterdir()):
            shutil.chown(path, USER, USER)

    def log_of(self, unit: Unit) -> str:
        """What a service has logged: to the journal, legacy ones to a file."""
        file = LOG / unit.name.replace(".service", ".log")
        return unit.log + (file.read_text() if file.exists() else "")

    def entries(self) -> list[dict[str, Any]]:
        """The entries of the journal of actions."""
        lines = (LOG / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def wait_for(self, order: Any) -> None:
        """Wait until an order is done."""
        eventually(lambda: self.testbed.state(order) == "done", "the order")


@pytest.fixture
def services(machine: None, testbed: SimulatedSite) -> Iterator[Services]:  # noqa: ARG001 - checks
    """A machine on which the agent is configured; its services are gone afterwards."""
    _remove_everything()
    CONFIGURATION.mkdir(mode=0o750)
    CLUSTER.mkdir()
    testbed.slurm = SimulatedSlurm(state_file=CLUSTER / "state.json")
    assert testbed.slurm.state  # the file is there, so that it can be given to a user
    write_executables(CLUSTER / "bin", CLUSTER / "state.json")
    settings = SETTINGS | {"slurm_bin_path": str(CLUSTER / "bin"), "require_system_user": False}
    cursor = json.loads(run("journalctl", "--lines=1", "--output=json").stdout)["__CURSOR"]
    found = Services(Installation(testbed, CONFIGURATION, settings), cursor)
    with testbed.served():
        found.write()
        yield found
        _remove_everything()


@pytest.fixture
def stalled_writes(services: Services) -> Iterator[StalledWrites]:
    """Every ``sacctmgr add`` hangs until it is released."""
    assert services.site.testbed.slurm
    writes = StalledWrites(CLUSTER / "bin")
    yield writes
    writes.release()


@pytest.fixture
def ordinary_user(machine: None) -> Iterator[str]:  # noqa: ARG001 - checks
    """The user of the services that do not run as root, made as docs/security.md says."""
    words = ("--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")
    run("useradd", *words, USER)
    yield USER
    _remove_everything()
    run("userdel", USER)


@pytest.fixture
def user_without_home(machine: None) -> Iterator[pwd.struct_passwd]:  # noqa: ARG001 - checks
    """Somebody whose home directory does not exist."""
    HOMES.mkdir()
    run("useradd", "--no-create-home", "--home-dir", str(HOMES / "ada01"), "ada01")
    yield pwd.getpwnam("ada01")
    run("userdel", "ada01")
    shutil.rmtree(HOMES)


def _remove_everything() -> None:
    run("systemctl", "kill", "--signal=KILL", "waldur-agent*", check=False)
    run("systemctl", "stop", "waldur-agent*", check=False)
    for path in UNITS.glob("**/waldur-agent*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    run("systemctl", "daemon-reload")
    run("systemctl", "reset-failed")
    for path in (RUN, LOG, CONFIGURATION, CLUSTER):
        shutil.rmtree(path, ignore_errors=True)
    RULE.unlink(missing_ok=True)
    Path("/etc/logrotate.d/waldur-site-agent").unlink(missing_ok=True)
    Path("/var/lib/logrotate/status").unlink(missing_ok=True)
