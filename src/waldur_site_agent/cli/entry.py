"""Entry point of ``waldur-site-agent``; handles Ctrl+C even while modules are imported."""

from __future__ import annotations

import gc
import os
import signal


def main() -> None:
    """Run the command."""
    # Some packages swallow KeyboardInterrupt during import; there is nothing to clean up yet.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    collect_garbage_seldom()
    from waldur_site_agent.cli.main import main as command  # noqa: PLC0415 - takes a second

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


def collect_garbage_seldom() -> None:
    """Look for reference cycles less often than Python does by default.

    A pass makes millions of small values that are in no cycle; looking through them again and again
    took two fifths of its CPU time.
    """
    gc.set_threshold(50_000, 20, 100)
