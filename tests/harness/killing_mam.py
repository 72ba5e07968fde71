"""The guillotine for the accounting manager's commands."""

from __future__ import annotations

from collections.abc import Sequence

from harness.killing import Guillotine, KilledError
from waldur_site_agent.backends.processes import CommandResult, Runner


class BeheadedRunner:
    """A way to the accounting manager that passes under the blade."""

    def __init__(self, guillotine: Guillotine, inner: Runner) -> None:
        self._guillotine = guillotine
        self._inner = inner

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """See :meth:`Runner.run`."""
        last = self._guillotine.step(" ".join(argv))
        result = self._inner.run(argv, timeout)
        if last:
            raise KilledError
        return result
