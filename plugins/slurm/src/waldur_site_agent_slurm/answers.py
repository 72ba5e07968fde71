"""What Slurm's commands print and what it means, by the version that was first seen to print it.

All tables are consulted whatever version is installed: a site may run any of them, and a
distribution may carry a patch of another. The recorded answers are in ``tests/data/slurm/answers``,
one file a case; that directory also says how to add one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.command_line import BackendUnavailableError
from waldur_site_agent.backends.processes import CommandResult, described


class Family(enum.Enum):
    """What to do about a failure."""

    DATABASE_UNAVAILABLE = "no command to slurmdbd has a chance at the moment"
    NOT_PERMITTED = "no change has a chance until an administrator permits it"
    CONTROLLER_UNAVAILABLE = "jobs can be neither listed nor cancelled"
    JOBS_ACTIVE = "the removal has to wait for jobs to end"
    OTHER = "this command failed; others may work"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that is known by its text."""

    texts: tuple[str, ...]
    """One of these is somewhere in the answer."""
    family: Family
    what: str
    remedy: str


_NO_PERMISSION = (
    "this user may not change the accounting database",
    (
        "let a Slurm administrator run: sacctmgr modify user where name={user} set "
        "adminlevel=operator (first 'sacctmgr add user' if Slurm does not know it)"
    ),
)
_NO_ACCOUNT = (
    "an account it needs does not exist",
    "look at 'sacctmgr show account'; if it is default_account of backend_settings, create it",
)
_NO_CLUSTER = (
    "slurmdbd does not know the cluster",
    "compare 'cluster' in backend_settings with: sacctmgr show cluster",
)
_NO_ACCESS_TO_DEFAULT_QOS = (
    "a default QOS would not be in its QOS list, so nothing was changed",
    "look at: sacctmgr show assoc where account=... format=account,user,qos,defaultqos",
)
_DEFAULT_ACCOUNT = (
    "the account is somebody's default account",
    "it is tried again; if this lasts: sacctmgr modify user where name=... set defaultaccount=...",
)

NOTHING_TO_DO: Mapping[str, tuple[str, ...]] = {
    "22.05": (
        "Nothing new added",
        "Nothing modified",
        "Nothing deleted",
        "Nothing removed",
    ),
    "24.11": (
        "Nothing added",
        "Already existing account",
        "Request didn't affect anything",
    ),
}
"""Lines that begin so, with exit code 1, mean that all is as it should be.

Unless a known failure is there, too: 24.11 says ``Nothing added`` after an account that it misses.
"""

FAILURES: Mapping[str, tuple[Failure, ...]] = {
    "22.05": (
        Failure(("Access/permission denied",), Family.NOT_PERMITTED, *_NO_PERMISSION),
        Failure(
            ("Unable to connect to database",),
            Family.DATABASE_UNAVAILABLE,
            "slurmdbd has no connection to its database (MariaDB or MySQL)",
            "start the database; slurmdbd reconnects by itself",
        ),
        Failure(
            (
                "Connection refused",
                "failed to open persistent connection",
                "Unable to contact slurmdbd",
                "Sending PersistInit msg",
                "Getting response to message type",
            ),
            Family.DATABASE_UNAVAILABLE,
            "slurmdbd cannot be reached",
            "start slurmdbd and look at its log; nothing was lost, the work is done when it is "
            "back",
        ),
        Failure(
            ("Unable to contact slurm controller",),
            Family.CONTROLLER_UNAVAILABLE,
            "slurmctld cannot be reached",
            "start slurmctld and look at its log; only it knows which jobs run and can cancel them",
        ),
        Failure(
            ("Job(s) active",),
            Family.JOBS_ACTIVE,
            "slurmdbd still counts jobs as running",
            "wait; if squeue does not know them, look at: sacctmgr show runawayjobs",
        ),
        Failure(
            ("no TRES known by type",),
            Family.OTHER,
            "the cluster does not count one of the components",
            "compare backend_components with 'sacctmgr show tres' and add what is missing to "
            "AccountingStorageTRES in slurm.conf",
        ),
        Failure(
            (
                "This account '",
                "Parent account '",
                "Parent Account ",
                "You specified a non-existent account",
            ),
            Family.OTHER,
            *_NO_ACCOUNT,
        ),
        Failure(("This cluster '",), Family.OTHER, *_NO_CLUSTER),
        Failure(
            ("have access to their default qos", "gave a bad default qos"),
            Family.OTHER,
            *_NO_ACCESS_TO_DEFAULT_QOS,
        ),
        Failure(
            ("have these as their Default QOS",),
            Family.OTHER,
            "a QOS that is to be removed is the default of an association",
            "look at: sacctmgr show assoc format=account,user,defaultqos; change that default",
        ),
        Failure(
            ("Invalid unit type", "Invalid value for GrpTRESMins"),
            Family.OTHER,
            "Slurm did not understand an amount",
            "look at what is set now: sacctmgr show assoc format=account,user,grptresmins",
        ),
        Failure(("remove the default account of a user",), Family.OTHER, *_DEFAULT_ACCOUNT),
        Failure(
            ("aren't associated with new default account",),
            Family.OTHER,
            "a user is not in the account that was to become the default",
            "it is tried again; if this lasts, somebody else is changing these users",
        ),
        Failure(
            ("You specified a non-existent user",),
            Family.OTHER,
            "Slurm does not know a user",
            "it is tried again; if this lasts, somebody else is removing users",
        ),
        Failure(
            ("Unknown option", "Unknown field", "No valid entity", "No blank names"),
            Family.OTHER,
            "sacctmgr did not understand the command",
            "run it by hand, and report it with the version that 'sacctmgr -V' prints",
        ),
    ),
    "24.11": (
        Failure(
            ("Only admins/operators/coordinators can add",),
            Family.NOT_PERMITTED,
            *_NO_PERMISSION,
        ),
        Failure(("No account ", "No parent account '"), Family.OTHER, *_NO_ACCOUNT),
        Failure(("has not been added yet",), Family.OTHER, *_NO_CLUSTER),
        Failure(
            ("Something was wrong with your query",),
            Family.OTHER,
            "sacctmgr did not understand the command",
            "run it by hand, and report it with the version that 'sacctmgr -V' prints",
        ),
    ),
}
"""Failures by what is printed, on either output.

On standard error they are failures with exit code 0, too: a default QOS that 22.05 refuses, and
an amount that it misreads, both come so.
"""


def known_failure(*outputs: str) -> Failure | None:
    """Return the first failure whose text is in one of these outputs."""
    said = "\n".join(outputs)
    for failures in FAILURES.values():
        for failure in failures:
            if any(text in said for text in failure.texts):
                return failure
    return None


def says_nothing_to_do(*outputs: str) -> bool:
    """Whether a line says that nothing had to be done."""
    texts = tuple(text for of_version in NOTHING_TO_DO.values() for text in of_version)
    lines = (line.strip() for output in outputs for line in output.splitlines())
    return any(line.removeprefix("sacctmgr: error: ").startswith(texts) for line in lines)


def remarks_of(stderr: str) -> tuple[str, ...]:
    """Return the lines of a standard error on which no known failure was found."""
    return tuple(" ".join(line.split()) for line in stderr.splitlines() if line.strip())


class DatabaseUnavailableError(BackendUnavailableError):
    """No command to slurmdbd has a chance at the moment: what is left is not even tried."""


class NotPermittedError(DatabaseUnavailableError):
    """slurmdbd refuses changes from this user: what is left is not even tried."""

    may_pass = False


class ControllerUnavailableError(TemporaryError):
    """slurmctld does not answer: jobs can be neither listed nor cancelled, accounts still read."""


class JobsActiveError(TemporaryError):
    """slurmdbd refuses a removal because jobs are still running, by its records."""


_ERRORS: Mapping[Family, type[TemporaryError]] = {
    Family.DATABASE_UNAVAILABLE: DatabaseUnavailableError,
    Family.NOT_PERMITTED: NotPermittedError,
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
