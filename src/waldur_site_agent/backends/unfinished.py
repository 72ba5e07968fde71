"""Notes about directories that are not complete yet, so that a later pass completes them.

They are empty files beside the agent's locks, shared by its processes. They outlive a killed
process, not a reboot: whatever they say can be found out by ``directories check``, too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from waldur_site_agent.backends.checks import Check, CheckStatus
from waldur_site_agent.backends.locking import default_lock_file
from waldur_site_agent.backends.permissions import directory_of_others
from waldur_site_agent.model.errors import TemporaryError

_log = logging.getLogger(__name__)
_SHOWN_LENGTH = 200
_SHOWN = 5


class Unfinished:
    """Names that are noted. Threads and processes may share it."""

    def __init__(self, kind: str, place: str) -> None:
        """Look at nothing yet; kind and place tell these notes from others of the machine."""
        self._title = f"{kind}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        self._here: set[str] = set()
        self._complained = False

    def names(self) -> frozenset[str]:
        """Everything that is noted."""
        directory = self._directory()
        try:
            found = {path.name for path in directory.iterdir()} if directory else set()
        except FileNotFoundError:
            found = set()
        except OSError as error:
            self._complain(f"{directory}: {error.strerror}")
            found = set()
        return frozenset(found | self._here)

    def add(self, name: str) -> None:
        """Note a name before the work on it begins."""
        self._here.add(name)
        directory = self._directory()
        if directory is None:
            return
        try:
            directory.mkdir(mode=0o750, exist_ok=True)
            (directory / name).touch(mode=0o640)
        except OSError as error:
            self._complain(f"{directory}: {error.strerror}")

    def discard(self, name: str) -> None:
        """The work on a name is complete."""
        self._here.discard(name)
        directory = self._directory()
        if directory is None:
            return
        try:
            (directory / name).unlink(missing_ok=True)
        except OSError as error:
            self._complain(f"{directory}: {error.strerror}")

    def _directory(self) -> Path | None:
        """Where the notes are; none where somebody else could make root write elsewhere."""
        try:
            found = default_lock_file(f"unfinished-{self._title}")
            others = directory_of_others(found / "note")
        except (TemporaryError, OSError) as error:
            self._complain(str(error))
            return None
        if others is not None:
            self._complain(f"{others} belongs to another user, or others can write to it")
            return None
        return found

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            _log.warning(
                "incomplete directories are remembered in this process only: %s",
                reason[:_SHOWN_LENGTH],
            )


def unfinished_check(name: str, notes: Unfinished) -> Iterator[Check]:
    """What waits for being completed, as a check of the diagnosis."""
    waiting = sorted(notes.names())
    if waiting:
        shown = ", ".join(waiting[:_SHOWN]) + (", ..." if len(waiting) > _SHOWN else "")
        yield Check(
            name=name,
            verdict=CheckStatus.WARNING,
            detail=f"{len(waiting)} not complete: {shown}",
            remedy="the agent tries again in each cycle and logs why it fails",
        )
