"""``allow``: lets a running agent carry out one refused plan, once."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import click

from waldur_site_agent.cli.output import say
from waldur_site_agent.cli.start import (
    DONE,
    UsageError,
    config_option,
    give_up,
    load_or_exit,
    open_journal,
)
from waldur_site_agent.service.allowances import Allowances, UnknownDigestError, default_directory

_SHOWN = 20


@click.command("allow")
@click.argument("digest")
@config_option
def allow_command(digest: str, config_file: Path) -> None:
    """Allow the removals that the guard refused, named by their digest.

    The allowance is for exactly this plan, for one hour, and is used once: the next cycle that
    plans the same removals carries them out. If anything about them has changed, the plan has
    another digest and is refused again. Run it on the machine of the agent, as root or as the
    agent's user. A running agent need not be restarted.

    Exit codes: 0 allowed, 2 no such plan, or the allowance or the journal cannot be written.
    """
    start = load_or_exit(config_file, quiet=True)
    allowances, by = Allowances(default_directory()), caller()
    try:
        plan = allowances.find(digest)
        journal = open_journal(start, dry_run=False)
        journal.note(
            {
                "offering": plan.offering,
                "action": "allow",
                "digest": plan.digest,
                "by": by,
                "changes": {account: list(names) for account, names in plan.changes.items()},
                "reason": plan.reason,
            }
        )
        journal.close()
        allowances.allow(plan.digest, by)
    except UnknownDigestError as error:
        give_up(str(error))
    except UsageError as error:
        give_up(f"{error}; nothing was allowed, because it could not be recorded")
    except OSError as error:
        give_up(f"nothing was allowed: {error}")
    say(f"allowed for one hour, once, for {plan.offering}: {plan.job}")
    for account, names in [*plan.changes.items()][:_SHOWN]:
        listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        say(f"  - {account}: {listed}")
    if len(plan.changes) > _SHOWN:
        say(f"  and {len(plan.changes) - _SHOWN} more accounts")
    sys.exit(DONE)


def caller() -> str:
    """Who runs this command: the user, and behind sudo the one who called it."""
    user, behind = _name(os.getuid()), os.environ.get("SUDO_UID", "")
    if os.getuid() == 0 and behind.isdecimal():
        return f"{_name(int(behind))} (sudo)"
    return user


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError, OverflowError):
        return f"uid {uid}"
