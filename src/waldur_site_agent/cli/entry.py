"""Where the command ``waldur-site-agent`` begins, quickly, so that Ctrl+C is always heeded."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command."""
    # Some packages catch every exception while they are imported, KeyboardInterrupt too; there is
    # nothing to clean up yet.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    from waldur_site_agent.cli.main import main as command  # noqa: PLC0415 - takes a second

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()
