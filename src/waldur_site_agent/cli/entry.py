"""Entry point of ``waldur-site-agent``; handles Ctrl+C even while modules are imported."""

from __future__ import annotations

import gc
import os
import resource
import signal


def main() -> None:
    """Run the command."""
    # Some packages swallow KeyboardInterrupt during import; there is nothing to clean up yet.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    leave_no_core_dumps()
    collect_garbage_seldom()
    from waldur_site_agent.cli.main import main as command  # noqa: PLC0415 - takes a second

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


def leave_no_core_dumps() -> None:
    """Have no core written, of this process and of its commands: it would hold the token.

    Root can raise the limit again (``prlimit --core``).
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def collect_garbage_seldom() -> None:
    """Look for reference cycles less often than Python does by default.

    A pass makes millions of small values that are in no cycle; looking through them again and again
    took two fifths of its CPU time.
    """
    gc.set_threshold(50_000, 20, 100)
