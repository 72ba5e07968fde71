"""The real Slurm and RabbitMQ of integration tests: started once per run, stopped afterwards."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.patience import eventually, patience
from integration import broker
from integration.not_run import note_missing
from integration.places import place_of, to_purge
from waldur_site_agent_slurm.client import ProcessRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import SimulatedSite

SERVICE = Path(__file__).parents[1] / "services" / "slurm"
_PORTS = 4


_ENVIRONMENT = place_of("slurm", 26817, _PORTS)


class RealSlurm:
    """A running cluster of the test service, and what tests need to do to it."""

    users = tuple(f"wsatest{number}" for number in range(1, 9))
    """Users that the operating system of this machine knows."""

    def __init__(self, slurm_conf: Path) -> None:
        self.slurm_conf = slurm_conf
        self.directory = slurm_conf.parents[1]
        self.environment = {**os.environ, "SLURM_CONF": str(slurm_conf), "LC_ALL": "C"}

    def runner(self) -> ProcessRunner:
        """The plugin's own way of starting commands, on this cluster."""
        return ProcessRunner(environment=self.environment)

    def run(self, *argv: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command, as another user if one is named, and return whatever it gave."""
        command = ["runuser", "-u", user, "--", *argv] if user else list(argv)
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * patience(),
        )

    def sacctmgr(self, *words: str) -> str:
        """Run ``sacctmgr -i`` and return what it printed; whatever it says is accepted."""
        return self.run("sacctmgr", "-i", *words).stdout

    def associations(self, prefix: str = "") -> list[str]:
        """Every association and what is set on it, for comparing byte by byte."""
        columns = "format=account,user,parentname,qos,defaultqos,grptresmins,maxsubmit,fairshare"
        rows = self.run("sacctmgr", "-P", "-n", "show", "assoc", "wopl", columns).stdout
        return sorted(row for row in rows.splitlines() if row.startswith(prefix))

    def accounts(self, prefix: str) -> list[str]:
        """The names of the accounts that start with ``prefix``."""
        rows = self.run("sacctmgr", "-P", "-n", "show", "account", "format=account").stdout
        return [name for name in rows.splitlines() if name.startswith(prefix)]

    def default_account(self, user: str) -> str:
        """The default account of a user, empty without one."""
        words = ("show", "user", f"name={user}", "format=defaultaccount")
        return self.run("sacctmgr", "-P", "-n", *words).stdout.strip()

    def submit_job(self, user: str, account: str, command: str = "sleep 300") -> str:
        """Submit a job, wait until slurmdbd knows that it runs, return its number."""
        job = self.submit(user, account, "--wrap", command)
        asked = ("sacct", "-X", "-n", "-P", "-j", job, "--format=State")
        self.wait_until(lambda: "RUNNING" in self.run(*asked).stdout)
        return job

    def submit(self, user: str, account: str, *words: str) -> str:
        """Submit a job and return its number."""
        usual = ("--parsable", "-A", account, "-o", "/dev/null", "-t", "10", "-D", "/")
        submitted = self.sbatch(*usual, *words, user=user)
        job = submitted.stdout.strip()
        assert job.isdigit(), submitted.stderr
        return job

    def sbatch(self, *words: str, user: str) -> subprocess.CompletedProcess[str]:
        """Run ``sbatch`` until slurmctld has heard of the association, and return the answer."""
        answers: list[subprocess.CompletedProcess[str]] = []

        def is_known() -> bool:
            answers.append(self.run("sbatch", *words, user=user))
            return "Invalid account" not in answers[-1].stderr

        self.wait_until(is_known)
        return answers[-1]

    def jobs(self, account: str) -> list[str]:
        """The numbers of the jobs of an account that are not over."""
        return self.run("squeue", "-h", "-A", account, "-o", "%A").stdout.split()

    def stop_slurmdbd(self) -> None:
        """Stop slurmdbd and wait until it is gone."""
        pid = self._pid_of("slurmdbd")
        os.kill(pid, signal.SIGTERM)
        self.wait_until(lambda: not Path(f"/proc/{pid}").exists())

    def start(self) -> None:
        """Start every daemon that is not running."""
        up()

    @contextmanager
    def slurmdbd_stopped(self) -> Iterator[None]:
        """Have no slurmdbd while the body runs."""
        self.stop_slurmdbd()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def slurmdbd_with(self, parameters: str) -> Iterator[None]:
        """Have these ``Parameters`` in slurmdbd.conf while the body runs."""
        self.stop_slurmdbd()
        up(WSA_SLURMDBD_PARAMETERS=parameters)
        try:
            yield
        finally:
            self.stop_slurmdbd()
            self.start()

    @contextmanager
    def slurmdbd_frozen(self) -> Iterator[None]:
        """Have a slurmdbd that does not answer while the body runs."""
        pid = self._pid_of("slurmdbd")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def clean(self, prefix: str) -> None:
        """Remove every account that starts with ``prefix``, and the users of the tests."""
        listed = ("account", "withassoc", "wopl", "format=account,user")
        rows = self.run("sacctmgr", "-P", "-n", "show", *listed).stdout.splitlines()
        pairs = [row.split("|")[:2] for row in rows if row.startswith(prefix)]
        accounts = {account for account, *_ in pairs}
        if accounts and (jobs := self.jobs(",".join(sorted(accounts)))):
            self.run("scancel", *jobs)
        known = self.run("sacctmgr", "-P", "-n", "show", "user", "format=user").stdout.split()
        members = {user for _, user in pairs}
        users = {u for u in known if u in members or u in self.users or u.startswith(prefix)}
        # whole users first: Slurm may refuse to remove an account that is somebody's default
        for entity, names in (("user", users), ("account", accounts)):
            if names:
                where = ("where", f"name={','.join(sorted(names))}")
                self._remove_when_jobs_are_over("sacctmgr", "-i", "remove", entity, *where)

    def _remove_when_jobs_are_over(self, *argv: str) -> None:
        self.wait_until(lambda: "Job(s) active" not in self.run(*argv).stderr)

    @staticmethod
    def wait_until(condition: Callable[[], bool]) -> None:
        """Wait for a condition of the cluster."""
        eventually(condition, "what the test waits for on the cluster", pause=0.1)

    def _pid_of(self, daemon: str) -> int:
        return int((self.directory / "run" / f"{daemon}.pid").read_text(encoding="ascii"))


def up(**environment: str) -> Path:
    """Start what is not running and return the path of slurm.conf."""
    started = subprocess.run(
        [SERVICE / "up.sh"],
        env={**_ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    return Path(started.stdout.strip().rpartition("SLURM_CONF=")[2])


@pytest.fixture(scope="session")
def real_slurm(request: pytest.FixtureRequest) -> Iterator[RealSlurm]:
    """A real Slurm; what this run started or made is stopped or removed at its end."""
    obstacle = _why_there_can_be_no_slurm()
    if obstacle:
        _skip(request.config, "real Slurm", obstacle)
    was_running = _is_running()
    purge = to_purge(_ENVIRONMENT["WSA_SLURM_DIR"])
    try:
        yield RealSlurm(up())
    finally:
        if not was_running:
            command = [str(SERVICE / "down.sh"), *purge]
            subprocess.run(command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, check=True)


@pytest.fixture(scope="session")
def real_rabbitmq(request: pytest.FixtureRequest) -> Iterator[broker.RealRabbitMQ]:
    """A real RabbitMQ; what this run started or made is stopped or removed at its end."""
    obstacle = broker.why_there_can_be_none()
    if obstacle:
        _skip(request.config, "real RabbitMQ", obstacle)
    was_running = broker.is_running()
    purge = broker.to_purge_at_the_end()
    try:
        rabbitmq = broker.up()
        yield rabbitmq
        rabbitmq.close()
    finally:
        if not was_running:
            broker.down(*purge)


@pytest.fixture
def testbed(testbed: SimulatedSite) -> Iterator[SimulatedSite]:
    """The one of all tests, served to the processes of the agent."""
    with testbed.served():
        yield testbed


_numbers = itertools.count(1)


@pytest.fixture
def prefix(real_slurm: RealSlurm) -> Iterator[str]:
    """A prefix of account names for one test; everything with it is removed afterwards."""
    # short: sacctmgr cuts names with something behind them at nine characters where it lists them
    name = f"t{os.getpid() % 100}n{next(_numbers)}"
    yield name
    real_slurm.clean(name)


@pytest.fixture
def user_without_home(real_slurm: RealSlurm) -> Iterator[Callable[[], str]]:
    """Makes a user of the operating system whose home directory does not exist."""
    name, homes = f"wsahome{os.getpid()}", real_slurm.directory / "homes"

    def make() -> str:
        homes.mkdir(exist_ok=True)
        subprocess.run(
            ["/usr/sbin/useradd", "-r", "-M", "-N", "-d", str(homes / name), name], check=True
        )
        return name

    yield make
    subprocess.run(["/usr/sbin/userdel", name], capture_output=True, check=False)
    shutil.rmtree(homes, ignore_errors=True)


def _skip(config: pytest.Config, service: str, reason: str) -> None:
    note_missing(config, service, reason)
    if os.environ.get("CI") or os.environ.get("REQUIRE_SERVICES"):
        pytest.fail(f"{service} is required here (CI or REQUIRE_SERVICES is set), but {reason}")
    pytest.skip(f"no {service}: {reason}")


def _why_there_can_be_no_slurm() -> str:
    if os.geteuid() != 0:
        return "it is started by root only"
    installed = all(shutil.which(p, path="/usr/sbin:/usr/bin") for p in ("slurmdbd", "mariadbd"))
    if not installed and shutil.which("apt-get") is None:
        return "Slurm is not installed and there is no apt-get to install it"
    return ""


def _is_running() -> bool:
    directory = Path(_ENVIRONMENT["WSA_SLURM_DIR"])
    try:
        pid = (directory / "run" / "slurmctld.pid").read_text(encoding="ascii").strip()
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "slurmctld"
    except OSError:
        return False
