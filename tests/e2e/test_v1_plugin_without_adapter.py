"""A plugin of version 1 in an installation without the adapter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.v1_site import CAMPUS, PLUGIN


@pytest.mark.guarantee("v1-plugins")
def test_without_the_adapter_its_modules_do_not_exist_and_the_advice_is_the_same() -> None:
    program = (
        "import sys; from importlib.metadata import EntryPoint\n"
        "from waldur_site_agent.backends import plugins\n"
        "plugins.ADAPTERS = 'nothing'\n"
        f"sys.path.append({str(PLUGIN)!r})\n"
        f"e = EntryPoint('campus', {CAMPUS!r}, 'waldur_site_agent.backends')\n"
        "group = next(iter(plugins.installed_plugins().values())).group\n"
        "plugins.Plugin('campus', 'campus-storage', group, e).load()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert "was written for version 1 of the agent; install waldur-site-agent-v1-plugins" in (
        done.stderr
    )
