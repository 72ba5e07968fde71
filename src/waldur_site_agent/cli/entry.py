"""Entry point of ``waldur-site-agent``; handles Ctrl+C even while modules are imported."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command."""
    # Some packages swallow KeyboardInterrupt during import; there is nothing to clean up yet.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    from waldur_site_agent.cli.main import main as command  # noqa: PLC0415 - takes a second

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()
