"""The real databases that coordinate agents in tests, and what tests need to do to them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.patience import eventually
from integration.places import place_of

SERVICES = Path(__file__).parents[1] / "services"


@dataclass(frozen=True)
class RealDatabase:
    """PostgreSQL or MariaDB, as its scripts start it."""

    name: str
    daemon: str
    program: str
    first_port: int

    @property
    def environment(self) -> dict[str, str]:
        return place_of(self.name, self.first_port, 1)

    @property
    def port(self) -> int:
        return int(self.environment[f"WSA_{self.name.upper()}_PORT"])

    @property
    def certificate(self) -> Path:
        """The certificate of the server, which signed it itself."""
        return self.directory / "tls" / "certificate.pem"

    def start(self) -> str:
        """Start the server if it is not running; return its URL."""
        started = subprocess.run(
            [SERVICES / self.name / "up.sh"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert started.returncode == 0, started.stderr
        return started.stdout.strip().rpartition("URL=")[2]

    @property
    def directory(self) -> Path:
        """Where it lives."""
        return Path(self.environment[f"WSA_{self.name.upper()}_DIR"])

    def stop(self, *options: str) -> None:
        """Stop the server and wait until it is gone; its clients' connections end."""
        down = [str(SERVICES / self.name / "down.sh"), *options]
        subprocess.run(down, env=self.environment, stdin=subprocess.DEVNULL, check=True)

    def kill(self) -> None:
        """End the server with SIGKILL and wait until it is gone."""
        pid = self._pid()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of the database")

    def is_running(self) -> bool:
        """Whether somebody started it already."""
        try:
            comm = Path(f"/proc/{self._pid()}/comm").read_text("ascii").strip()
        except (OSError, ValueError):
            return False
        return comm == self.daemon

    def why_there_can_be_none(self) -> str:
        """Why it cannot be started on this machine, or nothing."""
        if os.geteuid() != 0:
            return "it is started by root only"
        programs = [Path("/usr/sbin") / self.program, *Path("/usr/lib").glob(self.program)]
        if not any(program.exists() for program in programs) and not shutil.which("apt-get"):
            return f"{self.name} is not installed and there is no apt-get to install it"
        return ""

    def _pid(self) -> int:
        return int((self.directory / "run" / f"{self.daemon}.pid").read_text("ascii").split()[0])


POSTGRESQL = RealDatabase("postgresql", "postgres", "postgresql/*/bin/postgres", 28817)
MARIADB = RealDatabase("mariadb", "mariadbd", "mariadbd", 28917)
