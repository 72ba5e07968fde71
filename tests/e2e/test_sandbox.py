"""The sandbox as a command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx

from harness.patience import patience

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_serves_what_it_prints(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "waldur_site_agent_sandbox", "--port", "0", "--demo"]
    command += ["--state", str(tmp_path / "state.json"), "--version", "7.7.9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = ""
        while "/sandbox/\n" not in printed:
            line = process.stdout.readline()
            assert line, f"the command ended early: {printed}"
            printed += line
        settings = dict(re.findall(r"(waldur_\w+): +(\S+)", printed))
        headers = {"Authorization": f"Token {settings['waldur_api_token']}"}
        url = settings["waldur_api_url"]
        offering = settings["waldur_offering_uuid"]
        parameters = {"offering_uuid": offering}
        orders = httpx.get(
            f"{url}marketplace-orders/", params=parameters, headers=headers, timeout=patience()
        ).json()
        process.send_signal(signal.SIGINT)
        assert process.wait(patience()) == 0
    assert len(orders) == 2
    assert "acting as 7.7.9;" in printed


def test_the_command_says_which_version_it_does_not_know() -> None:
    command = [sys.executable, "-m", "waldur_site_agent_sandbox", "--version", "newest"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience())
    assert ended.returncode == 2
    assert "'newest' is not a Waldur version" in ended.stderr
