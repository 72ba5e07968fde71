"""What a command's answer means: success, nothing to do, or which failure and what to do about it.

sacctmgr's exit code does not tell: "nothing to do" is exit code 1, and several real failures are
exit code 0 with a complaint on standard error. The wording of the failures is from experiments
with 22.05; what is not recognised is shown whole and treated as temporary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.processes import described

if TYPE_CHECKING:
    from waldur_site_agent.backends.processes import CommandResult

_NOTHING_TO_DO = (
    "Nothing new added",
    "Nothing modified",
    "Nothing deleted",
    # newer versions
    "Nothing added",
    "Request didn't affect anything",
)


class DatabaseUnavailableError(TemporaryError):
    """No command to slurmdbd has a chance at the moment: what is left is not even tried."""


class ControllerUnavailableError(TemporaryError):
    """slurmctld does not answer: jobs can be neither listed nor cancelled, accounts still read."""


class JobsActiveError(TemporaryError):
    """slurmdbd refuses a removal because jobs are still running, by its records."""


_Family: TypeAlias = type[TemporaryError]

_KNOWN: tuple[tuple[tuple[str, ...], _Family, str, str], ...] = (
    (
        ("Access/permission denied",),
        DatabaseUnavailableError,
        "this user may not change the accounting database",
        (
            "let a Slurm administrator run: sacctmgr modify user where name={user} set "
            "adminlevel=operator (first 'sacctmgr add user' if Slurm does not know it)"
        ),
    ),
    (
        ("Unable to connect to database",),
        DatabaseUnavailableError,
        "slurmdbd has no connection to its database (MariaDB or MySQL)",
        "start the database; slurmdbd reconnects by itself",
    ),
    (
        (
            "Connection refused",
            "failed to open persistent connection",
            "Unable to contact slurmdbd",
        ),
        DatabaseUnavailableError,
        "slurmdbd cannot be reached",
        "start slurmdbd and look at its log; nothing was lost, the work is done when it is back",
    ),
    (
        ("Unable to contact slurm controller",),
        ControllerUnavailableError,
        "slurmctld cannot be reached",
        "start slurmctld and look at its log; only it knows which jobs run and can cancel them",
    ),
    (
        ("Job(s) active",),
        JobsActiveError,
        "slurmdbd still counts jobs as running",
        "wait; if squeue does not know them, look at: sacctmgr show runawayjobs",
    ),
    (
        ("no TRES known by type",),
        TemporaryError,
        "the cluster does not count one of the components",
        (
            "compare backend_components with 'sacctmgr show tres' and add what is missing to "
            "AccountingStorageTRES in slurm.conf"
        ),
    ),
    (
        ("This account '",),
        TemporaryError,
        "an account it needs does not exist",
        "look at 'sacctmgr show account'; if it is default_account of backend_settings, make it",
    ),
)


def failure(result: CommandResult, user: str) -> TemporaryError | None:
    """Return what went wrong, or ``None`` when the command gives no sign of failure.

    Success still has to be confirmed by reading back. ``user`` is the operating-system user that
    started the command. Nothing is a permanent error here: a command that was built from checked
    values and fails tells of the cluster or of its set-up, never of an order.
    """
    complains = any(not _is_warning(line) for line in result.stderr.splitlines())
    if not complains and result.exit_code == 0:
        return None
    if not complains and any(text in result.stdout for text in _NOTHING_TO_DO):
        return None
    said = f"{result.stderr}\n{result.stdout}"
    for texts, family, what, remedy in _KNOWN:
        if any(text in said for text in texts):
            return family(f"{what}: {described(result)}", remedy=remedy.format(user=user))
    return TemporaryError(
        f"Slurm gave an answer that is not understood: {described(result)}",
        remedy="run the command by hand to see more",
    )


def _is_warning(line: str) -> bool:
    """Whether a line of standard error is a remark that every command of a site may make."""
    return not line.strip() or ": warning: " in line
