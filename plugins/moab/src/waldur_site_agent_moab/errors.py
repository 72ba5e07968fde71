"""What a command's answer means: success, or which failure and what to do about it.

The words are from the administrator's guide, not from experiments: whatever is not recognised is
shown whole and treated as temporary. Nothing is permanent here: a command that was built from
checked values and fails tells of the accounting manager or of its set-up, never of an order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.processes import described

if TYPE_CHECKING:
    from waldur_site_agent.backends.processes import CommandResult


class MamUnavailableError(TemporaryError):
    """No command has a chance at the moment: what is left is not even tried."""


class UserUnknownError(TemporaryError):
    """The accounting manager does not know a user."""


_Family: TypeAlias = type[TemporaryError]

_KNOWN: tuple[tuple[tuple[str, ...], _Family, str, str], ...] = (
    (
        ("connection refused", "unable to connect", "failed to connect", "could not connect",
         "connection timed out", "no route to host", "failed sending message"),
        MamUnavailableError,
        "the accounting manager cannot be reached",
        "start its server (mam-server) and look at its log; nothing was lost",
    ),
    (
        ("permission denied", "not authorized", "unauthorized", "authentication failed",
         "failed to authenticate", "invalid signature", "access denied"),
        MamUnavailableError,
        "this user may not do that in the accounting manager",
        "run the agent as root on a head node, or give its user the role of an administrator",
    ),
    (
        ("insufficient", "not enough"),
        TemporaryError,
        "the fund holds less than was to be taken back",
        "jobs were charged meanwhile; the amount is computed anew in the next cycle",
    ),
)  # fmt: skip


def failure(result: CommandResult) -> TemporaryError | None:
    """Return what went wrong, or ``None`` when the command gives no sign of failure.

    Success still has to be confirmed by reading back.
    """
    if result.exit_code == 0:
        return None
    said = f"{result.stderr}\n{result.stdout}".lower()
    for texts, family, what, remedy in _KNOWN:
        if any(text in said for text in texts):
            return family(f"{what}: {described(result)}", remedy=remedy)
    if "--add-user" in result.argv and "user" in said and "does not exist" in said:
        user = result.argv[-1]
        return UserUnknownError(
            f"the accounting manager does not know the user {user}: {described(result)}",
            remedy=f"make it: mam-create-user -u {user}",
        )
    return TemporaryError(
        f"the accounting manager gave an answer that is not understood: {described(result)}",
        remedy="run the command by hand to see more",
    )
