"""What somebody reads who starts the sandbox or the demo without their distribution."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.patience import patience
from harness.processes import COMMANDS, environment
from waldur_site_agent import __version__

NOT_INSTALLED = """\
import importlib.metadata
found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **wanted: (
    () if wanted.get("group") == "waldur_site_agent.commands" else found(**wanted)
)
"""


@pytest.mark.parametrize("command", ["demo", "sandbox"])
def test_it_says_what_to_install_and_prints_no_traceback(command: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOT_INSTALLED)
    done = subprocess.run(
        [str(COMMANDS / "waldur-site-agent"), command],
        capture_output=True,
        text=True,
        check=False,
        env=environment(PYTHONPATH=str(tmp_path)),
        timeout=patience(),
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    missing = f"{command} is part of waldur-site-agent-sandbox, which is not installed"
    assert missing in done.stderr
    assert "pip install . ./plugins/sandbox ./plugins/slurm" in done.stderr
    assert f'"waldur-site-agent[sandbox,slurm]=={__version__}"' in done.stderr
