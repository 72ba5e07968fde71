"""Setting and clearing limits: accounts with the same change share one command."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError, SetLimits
from waldur_site_agent_slurm import commands, tres
from waldur_site_agent_slurm.names import account_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from waldur_site_agent.backends import SetMemberLimits
    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Account

    Change: TypeAlias = frozenset[tuple[str, int | None]]


def set_limits(work: Work, tasks: Iterable[Task]) -> None:
    """Carry out the limit changes of a batch."""
    same: defaultdict[Change, list[Task]] = defaultdict(list)
    for task in tasks:
        if isinstance(task.action, SetLimits):
            with work.ledger.attempt(task):
                change = _change(task.action, usable_account(work, task))
                if change:
                    same[change].append(task)
    for change, alike in same.items():
        for portion in commands.chunks(task.account for task in alike):
            concerned = [task for task in alike if task.account in portion]
            with work.ledger.attempt(*concerned):
                work.ledger.writes(*concerned)
                argv = commands.set_limits(portion, dict(change), work.only)
                work.client.write(argv, len(portion))


def usable_account(work: Work, task: Task) -> Account:
    """Return the account that an action is about.

    Raises:
        PermanentError: the name cannot be used, or there is no such account.
    """
    name = account_name(task.action.resource, "account")
    account = work.cluster.find(name)
    if account is None:
        raise PermanentError(
            f'{name}: there is no Slurm account "{name}" in cluster {work.cluster.name}; '
            "it was removed, or never made"
        )
    return account


def amounts(action: SetLimits | SetMemberLimits) -> dict[str, int | None]:
    """Return the limits of an action as Slurm takes them.

    Raises:
        PermanentError: an amount that Slurm cannot take.
    """
    return {
        name: None if amount is None else tres.whole_amount(name, amount, action.resource)
        for name, amount in action.limits.items()
    }


def _change(action: SetLimits, account: Account) -> Change:
    wanted = amounts(action).items()
    return frozenset((n, v) for n, v in wanted if not tres.is_set_to(n, account.limits, v))
