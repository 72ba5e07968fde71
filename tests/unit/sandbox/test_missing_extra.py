"""What somebody reads who starts the sandbox or the demo without the extra that they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.processes import COMMANDS, environment

STARTS = """\
import sys
sys.modules["starlette"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name == "starlette" else found(name, package)
)
"""


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "waldur_site_agent.sandbox", "--demo"],
        [str(COMMANDS / "waldur-site-agent"), "demo"],
    ],
    ids=["sandbox", "demo"],
)
def test_it_says_what_to_install_and_prints_no_traceback(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STARTS)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment(PYTHONPATH=str(tmp_path)),
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "the sandbox needs starlette; install waldur-site-agent[sandbox]" in done.stderr
    assert "pip install '.[sandbox]'" in done.stderr
