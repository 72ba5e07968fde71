"""The machine before and after demos and services, also interrupted ones: nothing is left on it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.patience import eventually, patience
from harness.processes import COMMANDS, environment
from integration.databases import MARIADB, POSTGRESQL, SERVICES, RealDatabase
from integration.not_run import note_missing
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE, OWN_DIRECTORY

DEMO = Path(__file__).parents[2] / "services" / "demo.sh"
AGENT = str(COMMANDS / "waldur-site-agent")


class Machine(NamedTuple):
    """What a run could leave. Its processes and files are known by their ``TMPDIR``."""

    temporary_files: list[str]
    processes: dict[int, str]
    locks_and_health: set[str]
    mounts: str
    users: set[str]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory that the services, which run as users of their own, can reach."""
    place = Path(tempfile.mkdtemp(prefix="wsa-left-"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)


def seen(temporary: Path) -> Machine:
    own = {path.name for path in OWN_DIRECTORY.iterdir()} if OWN_DIRECTORY.is_dir() else set()
    return Machine(
        sorted(path.name for path in temporary.iterdir()),
        dict(processes(temporary)),
        own,
        Path("/proc/self/mounts").read_text(encoding="utf-8"),
        # those of the clusters come and go with other runs of the tests
        {one.pw_name for one in pwd.getpwall() if not one.pw_name.startswith("wsa")},
    )


def processes(temporary: Path) -> Iterator[tuple[int, str]]:
    """The living processes that have their temporary files there."""
    wanted = f"TMPDIR={temporary}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name), (entry / "comm").read_text().strip()


def free_ports(count: int) -> int:
    """The first of some ports that nobody uses, below those that the kernel gives to clients."""
    for first in range(29017 + os.getpid() % 300 * 10, 32700, count):
        with ExitStack() as sockets, suppress(OSError):
            for port in range(first, first + count):
                sockets.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no ports are free")


def started(temporary: Path, **variables: str) -> subprocess.Popen[str]:
    """``make demo``, without the place that tests give to locks."""
    first = free_ports(12)
    ports = {"WSA_SLURM_PORT": str(first), "WSA_RABBITMQ_PORT": str(first + 4)}
    places = {"WSA_SLURM_DIR", "WSA_RABBITMQ_DIR", DIRECTORY_VARIABLE}
    kept = {key: value for key, value in environment().items() if key not in places}
    return subprocess.Popen(
        # where the tests run in the background, their children would ignore Ctrl+C
        ["/usr/bin/env", "--default-signal=INT", str(DEMO), AGENT, "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=kept | ports | {"TMPDIR": str(temporary)} | variables,
        text=True,
        start_new_session=True,
    )


def ended(demo: subprocess.Popen[str]) -> str:
    """What it printed until its end."""
    shown, _ = demo.communicate(timeout=3 * patience())
    return shown


def test_a_demo_leaves_nothing(temporary: Path) -> None:
    before = seen(temporary)
    with started(temporary, BACKEND="moab") as demo:
        shown = ended(demo)
    assert demo.returncode == 0, shown
    assert seen(temporary) == before


@pytest.mark.database
@pytest.mark.parametrize(
    "found", [POSTGRESQL, pytest.param(MARIADB, marks=pytest.mark.long)], ids=lambda one: one.name
)
def test_a_database_of_the_tests_leaves_nothing(
    found: RealDatabase, temporary: Path, request: pytest.FixtureRequest
) -> None:
    if obstacle := found.why_there_can_be_none():
        note_missing(request.config, f"real {found.name}", obstacle)
        pytest.skip(f"no {found.name}: {obstacle}")
    before, name = seen(temporary), found.name.upper()
    kept = {key: value for key, value in os.environ.items() if key != f"WSA_{name}_DIR"}
    place = {"TMPDIR": str(temporary), f"WSA_{name}_PORT": str(free_ports(1))}
    for script in (["up.sh"], ["down.sh", "--purge"]):
        command = [str(SERVICES / found.name / script[0]), *script[1:]]
        subprocess.run(command, env=kept | place, stdin=subprocess.DEVNULL, check=True)
    assert seen(temporary) == before


@pytest.mark.rabbitmq
@pytest.mark.usefixtures("real_rabbitmq")
def test_ctrl_c_while_the_broker_of_the_demo_starts_leaves_nothing(temporary: Path) -> None:
    before = seen(temporary)
    with started(temporary) as demo:
        eventually(lambda: "beam.smp" in dict(processes(temporary)).values(), "a broker starts")
        os.killpg(demo.pid, signal.SIGINT)
        shown = ended(demo)
    assert demo.returncode == 130, shown
    assert "stopped" in shown
    assert seen(temporary) == before
