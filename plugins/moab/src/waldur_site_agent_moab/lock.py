"""One writer at a time, across processes and operating-system users of one machine.

Two that computed a deposit from the same figures would both make it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waldur_site_agent.backends import locking

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

_PURPOSE = (
    "deposits are made by one agent at a time: look at that process if it should have ended, or, "
    "where it has, at the mam command that it left running"
)


def default_lock_file() -> Path:
    """Return the lock file of this machine's agents, in the first usable directory."""
    return locking.default_lock_file("waldur-site-agent-moab.lock")


def writer_lock(path: Path, wait_seconds: float) -> AbstractContextManager[int]:
    """Hold the lock while the body runs; gives the descriptor, for writing commands to inherit.

    Raises:
        TemporaryError: another writer held it all the time, or the file cannot be used.
    """
    return locking.exclusive_lock(path, wait_seconds, _PURPOSE)


def probe_lock(path: Path) -> None:
    """Check that the lock file can be opened, without waiting for anybody.

    Raises:
        TemporaryError: it can be neither opened nor made.
    """
    os.close(locking.open_lock(path))
