"""init on a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.processes import COMMANDS, environment
from waldur_site_agent.config import load_configuration

UUID = "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1"


TOKEN = "0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "config.yaml"


def test_on_a_terminal_it_asks_five_questions_and_does_not_show_the_token(file: Path) -> None:
    answers = ["https://waldur.example.com", UUID, TOKEN, "", "Example"]
    command = [str(COMMANDS / "waldur-site-agent"), "init", "-c", str(file)]
    with subprocess.Popen(
        [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as terminal:
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        shown = b""
        for number, answer in enumerate(answers, start=1):
            while f"{number}/5".encode() not in shown or not shown.endswith(b": "):
                byte = terminal.stdout.read(1)
                assert byte, shown
                shown += byte
            terminal.stdin.write(answer.encode() + b"\n")
            terminal.stdin.flush()
        shown += terminal.stdout.read()
    assert TOKEN.encode() not in shown
    (offering,) = load_configuration(file, {})[0].offerings
    assert (offering.token, offering.order_processing_backend) == (TOKEN, "slurm")
