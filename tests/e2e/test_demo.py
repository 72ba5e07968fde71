"""The demo on a terminal: colours, headings, units, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import patience
from harness.processes import COMMANDS, environment

DEMO = [str(COMMANDS / "waldur-site-agent"), "demo"]
ESCAPE = "\x1b["


def on_a_terminal(*command: str, **variables: str) -> str:
    """What the command shows on a terminal."""
    spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    inherited = {key: value for key, value in environment().items() if key != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-c", spawn, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=inherited | variables,
        check=True,
        timeout=patience(),
    )
    return done.stdout.decode()


def test_a_terminal_gets_colours_and_is_told_what_is_next() -> None:
    shown = on_a_terminal(*DEMO)
    assert re.search(r"\x1b\[32m  \+ ada .*team of project climate\x1b\[0m", shown)
    assert re.search(r"\x1b\[31m  - alan ", shown)
    assert f"{ESCAPE}1mWhat next?{ESCAPE}0m" in shown
    assert "waldur-site-agent init" in shown.rpartition("What next?")[2]


def test_no_color_is_honoured() -> None:
    assert ESCAPE not in on_a_terminal(*DEMO, NO_COLOR="1")


def test_the_empty_cluster_has_a_heading_and_limits_have_the_units_that_are_sold() -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, env=environment(), check=True)
    assert "\nAccounts in Slurm:\nroot  (nothing below it yet)\n" in done.stdout
    assert "~ limit          cpu none -> 36000000 (600 k-Hours)  with the account" in done.stdout
    assert "cpu=36000000 (600 k-Hours)  gres/gpu=30000 (500 GPU-hours)" in done.stdout
    assert ESCAPE not in done.stdout


@pytest.mark.parametrize("lines", [0, 1, 25, 40, 58])
def test_ctrl_c_at_any_moment_prints_no_traceback_and_leaves_nothing(
    lines: int, tmp_path: Path
) -> None:
    with subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TMPDIR=str(tmp_path), PYTHONUNBUFFERED="1"),
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stdout.readline()
        if not lines:  # while it still imports: the interpreter itself must be up
            maps = Path(f"/proc/{process.pid}/maps")
            while "_json" not in maps.read_text() and "pydantic" not in maps.read_text():
                assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        errors = process.stderr.read()
        code = process.wait(patience())
    assert "Traceback" not in errors
    assert code == 130, errors
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
