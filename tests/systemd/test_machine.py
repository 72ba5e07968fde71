"""``make test-systemd`` leaves nothing behind when it is interrupted; run outside the machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness import eventually, patience
from integration.not_run import note_missing

SCRIPT = Path(__file__).parents[1] / "services" / "systemd" / "test.sh"
LONG = "tests/systemd/test_failures.py::test_waldur_may_be_away_when_the_machine_boots"
INTERRUPTED, TERMINATED = 130, 143


@pytest.fixture
def testing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The tests of a system that was installed before, in a directory of their own."""
    if not os.environ.get("WSA_DEBIAN_CACHE"):
        reason = "`make test-systemd` runs them, with a root directory that was built before"
        note_missing(request.config, "a real systemd", reason)
        pytest.skip(reason)
    process = subprocess.Popen(
        [SCRIPT, LONG],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(patience())


def cgroup_of(process: subprocess.Popen[bytes]) -> Path:
    lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    mounted = next(line.split()[1] for line in lines if line.split()[2] == "cgroup2")
    return Path(mounted) / f"waldur-site-agent-{process.pid}"


def processes_of(cgroup: Path) -> list[str]:
    """The processes of a run: those that know its cgroup, and those that are in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            about = [(process / file).read_bytes().decode() for file in ("environ", "cgroup")]
            if cgroup.name in " ".join(about):
                found.append((process / "comm").read_text(encoding="utf-8").strip())
    return found


@pytest.mark.parametrize(
    ("moment", "number", "everybody"),
    [
        ("the root is made", signal.SIGINT, True),  # Ctrl+C
        ("the machine runs", signal.SIGINT, True),
        ("the machine runs", signal.SIGTERM, False),
    ],
)
def test_nothing_is_left_of_a_run_that_was_interrupted(
    testing: subprocess.Popen[bytes],
    tmp_path: Path,
    moment: str,
    number: signal.Signals,
    *,
    everybody: bool,
) -> None:
    cgroup = cgroup_of(testing)
    if moment == "the machine runs":
        eventually(lambda: "systemd" in processes_of(cgroup), "the boot")
    else:
        eventually(lambda: list(tmp_path.glob("*/root/usr")), "the root")
    assert processes_of(cgroup) != []
    if everybody:
        os.killpg(testing.pid, number)
    else:
        testing.send_signal(number)
    assert testing.wait(patience()) == (INTERRUPTED if everybody else TERMINATED)
    assert list(tmp_path.iterdir()) == []
    assert not cgroup.exists()
    assert str(tmp_path) not in Path("/proc/mounts").read_text(encoding="utf-8")
    eventually(lambda: processes_of(cgroup) == [], "the end of all processes")
