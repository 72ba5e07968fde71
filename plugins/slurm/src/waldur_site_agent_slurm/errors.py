"""What a command's answer means: success, nothing to do, or which failure and what to do about it.

sacctmgr's exit code does not tell: "nothing to do" is exit code 1, and several real failures are
exit code 0 with a complaint on standard error. Remarks on standard error that are no failure come
with any command: about slurm.conf, from the loader, from debugging. The texts are in
:mod:`waldur_site_agent_slurm.answers`; what is not recognised is shown whole and treated as
temporary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.processes import described
from waldur_site_agent_slurm.answers import Family, known_failure, says_nothing_to_do

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.backends.processes import CommandResult


class DatabaseUnavailableError(TemporaryError):
    """No command to slurmdbd has a chance at the moment: what is left is not even tried."""


class ControllerUnavailableError(TemporaryError):
    """slurmctld does not answer: jobs can be neither listed nor cancelled, accounts still read."""


class JobsActiveError(TemporaryError):
    """slurmdbd refuses a removal because jobs are still running, by its records."""


_ERRORS: Mapping[Family, type[TemporaryError]] = {
    Family.DATABASE_UNAVAILABLE: DatabaseUnavailableError,
    Family.CONTROLLER_UNAVAILABLE: ControllerUnavailableError,
    Family.JOBS_ACTIVE: JobsActiveError,
    Family.OTHER: TemporaryError,
}


def failure(result: CommandResult, user: str) -> TemporaryError | None:
    """Return what went wrong, or ``None`` when the command gives no sign of failure.

    With exit code 0 only a known failure on standard error is one; anything else there is a
    remark, and what was read, or is read back, decides. ``user`` is the operating-system user that
    started the command. Nothing is a permanent error here: a command that was built from checked
    values and fails tells of the cluster or of its set-up, never of an order.
    """
    succeeded = result.exit_code == 0
    known = known_failure(result.stderr) if succeeded else known_failure(*_outputs(result))
    if known is not None:
        remedy = known.remedy.replace("{user}", user)
        return _ERRORS[known.family](f"{known.what}: {described(result)}", remedy=remedy)
    if succeeded or says_nothing_to_do(*_outputs(result)):
        return None
    return TemporaryError(
        f"Slurm gave an answer that is not understood: {described(result)}",
        remedy="run the command by hand to see more",
    )


def _outputs(result: CommandResult) -> tuple[str, str]:
    return result.stderr, result.stdout
