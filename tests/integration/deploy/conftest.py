"""A user for the agent, and its services about as confined as systemd would have them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import Installation, SimulatedSite, patience
from harness.processes import COMMANDS, environment
from integration.not_run import note_missing
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE

SERVICE = Path(__file__).parents[2] / "services" / "systemd"


@pytest.fixture(scope="session")
def systemd_tools(request: pytest.FixtureRequest) -> None:
    """systemd-analyze and sudo, installed where that is possible."""
    if shutil.which("systemd-analyze") and shutil.which("visudo"):
        return
    obstacle = "they are not installed, and only root can install them"
    if os.geteuid() == 0:
        done = subprocess.run(
            [SERVICE / "up.sh"],
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * patience(),
        )
        if done.returncode == 0:
            return
        obstacle = done.stderr[-300:]
    note_missing(request.config, "systemd-analyze and sudo", obstacle)
    if os.environ.get("CI") or os.environ.get("REQUIRE_SERVICES"):
        pytest.fail(f"systemd-analyze and sudo are required here, but {obstacle}")
    pytest.skip(f"no systemd-analyze and sudo: {obstacle}")


@dataclass
class Confined:
    """The agent's commands as a service would run them."""

    site: Installation
    user: str
    directory: Path

    @property
    def journal(self) -> Path:
        return self.directory / "log" / "journal.jsonl"

    def write(self, **settings: Any) -> None:
        """Write the configuration; only root and the agent's group may read it."""
        self.site.write(
            reporting_backend="",
            username_management_backend="base",
            membership_sync_backend="slurm",
            backend_settings=self.site.backend_settings | settings,
        )
        text = self.site.file.read_text(encoding="utf-8")
        self.site.file.write_text(f"journal: /var/log/waldur-site-agent/journal.jsonl\n{text}")
        shutil.chown(self.site.file, "root", self.user)
        self.site.file.chmod(0o640)

    def run(self, kind: str, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the agent's commands; ``kind`` is that of confined.sh."""
        return self.start(kind, str(COMMANDS / command), *arguments, "-c", str(self.site.file))

    def start(self, kind: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run any command so."""
        places = [str(self.directory / name) for name in ("run", "log")]
        variables = {"WSA_REACHABLE": _reachable(), DIRECTORY_VARIABLE: ""}
        return subprocess.run(
            [str(SERVICE / "confined.sh"), kind, self.user, *places, *argv],
            env=environment(**self.site.variables, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience(),
        )


@pytest.fixture
def confined(real_slurm: Any, prefix: str, testbed: SimulatedSite) -> Iterator[Confined]:
    """The agent between a sandbox and a real cluster, as an operator of that cluster."""
    user = f"wsaagent{os.getpid() % 100000}"
    directory = real_slurm.directory / user
    subprocess.run(["/usr/sbin/useradd", "-r", "-M", "-U", user], check=True)
    try:
        for name in ("run", "log", "etc", "homes"):
            (directory / name).mkdir(parents=True)
        for name in ("run", "log"):
            shutil.chown(directory / name, user, user)
        real_slurm.sacctmgr("add", "user", f"name={user}", "account=root", "adminlevel=operator")
        settings = {f"{kind}_prefix": f"{prefix}{kind[0]}_" for kind in _PREFIXED}
        variables = {"SLURM_CONF": str(real_slurm.slurm_conf)}
        yield Confined(
            Installation(
                testbed, directory / "etc", settings | {"qos_paused": "paused"}, variables
            ),
            user,
            directory,
        )
    finally:
        real_slurm.clean(prefix)
        real_slurm.sacctmgr("remove", "user", f"name={user}")
        subprocess.run(["/usr/sbin/userdel", user], capture_output=True, check=False)
        shutil.rmtree(directory)


_PREFIXED = ("customer", "project", "allocation")


def _reachable() -> str:
    """Where Python and the agent are, should that be below /root, which users cannot enter."""
    found = (sys.base_prefix, sys.prefix, str(Path(__file__).parents[3]))
    return " ".join(dict.fromkeys(found))
