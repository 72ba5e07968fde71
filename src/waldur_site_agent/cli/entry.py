"""Where the command ``waldur-site-agent`` begins, quickly, so that Ctrl+C is always heeded."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command."""
    try:
        from waldur_site_agent.cli.main import main as command  # noqa: PLC0415 - takes a second
    except KeyboardInterrupt:
        sys.exit(130)
    command()
