"""Entry points of all programs; they handle Ctrl+C even while modules are imported.

``pyproject.toml`` names one function here for each program, so that whatever a process needs from
its first moment is done for all of them.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable

_PR_SET_DUMPABLE = 4


def main() -> None:
    """Run ``waldur-site-agent``."""
    _begin()
    from waldur_site_agent.cli.main import main as command  # noqa: PLC0415 - takes a second

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


def _alias(name: str) -> Callable[[], None]:
    def run() -> None:
        _begin()
        from waldur_site_agent.cli import aliases  # noqa: PLC0415 - takes a second

        signal.signal(signal.SIGINT, signal.default_int_handler)
        getattr(aliases, name)()

    return run


agent = _alias("agent")
create_homedirs = _alias("create_homedirs")
diagnose_slurm_account = _alias("diagnose_slurm_account")
diagnostics = _alias("diagnostics")
export_plugin_catalogue = _alias("export_plugin_catalogue")
healthz = _alias("healthz")
load_components = _alias("load_components")
load_historical_usage = _alias("load_historical_usage")
sync_offering_users = _alias("sync_offering_users")
sync_resource_limits = _alias("sync_resource_limits")
test_order = _alias("test_order")


def _begin() -> None:
    # Some packages swallow KeyboardInterrupt during import; there is nothing to clean up yet.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    keep_memory_private()
    collect_garbage_seldom()


def keep_memory_private() -> None:
    """Let nobody but root look into this process: its memory and environment hold the token.

    No core is written, of this process and of its commands. On Linux other processes of the same
    user can neither trace this process nor read its environment; its commands start anew, without
    the token. Root can look all the same (``sudo py-spy``, ``gcore``), and raise the limit again
    (``prlimit --core``).
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only for this call

        # a kernel that refuses leaves what was before; cores are off all the same
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def collect_garbage_seldom() -> None:
    """Look for reference cycles less often than Python does by default.

    A pass makes millions of small values that are in no cycle; looking through them again and again
    took two fifths of its CPU time.
    """
    gc.set_threshold(50_000, 20, 100)
