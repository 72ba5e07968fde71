"""Taking the right of coordinators before they leave: it would let them add themselves again.

Removing an association leaves the right where it is, unless Slurm forgets the user altogether. A
coordinator of an account is one of every account below it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.errors import DatabaseUnavailableError
from waldur_site_agent_slurm.names import is_removable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from waldur_site_agent.backends import SiteAgentError
    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Cluster

    Coordinators = Mapping[str, frozenset[str]]

_log = logging.getLogger(__name__)


def take_rights(
    work: Work, leaving: Mapping[Task, Collection[str] | None]
) -> Mapping[Task, SiteAgentError]:
    """Take the right of coordinators among those who leave (``None``: of everybody).

    Returns:
        By task, why a right is not known to be taken. The association is removed all the same,
        but the action has failed.
    """
    failures: dict[Task, SiteAgentError] = {}
    if not leaving:
        return failures
    trees = {task: _with_those_below(task.account, work.cluster) for task in leaving}
    try:
        found = work.client.coordinators({name for tree in trees.values() for name in tree})
    except DatabaseUnavailableError:
        raise
    except TemporaryError as error:
        return dict.fromkeys(leaving, error)
    taken: dict[Task, Collection[str] | None] = {}
    for task, users in leaving.items():
        rights = rights_to_take(task.account, trees[task], users, found, work.cluster)
        try:
            _take(work, task, rights)
        except DatabaseUnavailableError:
            raise
        except TemporaryError as error:
            failures[task] = error
        if rights:
            taken[task] = users
    if taken:
        _warn_of_what_is_left(work, taken)
    return failures


def _take(work: Work, task: Task, rights: Mapping[tuple[str, ...], Collection[str]]) -> None:
    for accounts, people in rights.items():
        for portion in commands.chunks(people):
            work.ledger.writes(task)
            work.client.write(commands.remove_coordinators(portion, accounts), len(portion))


def rights_to_take(
    account: str,
    tree: Collection[str],
    users: Collection[str] | None,
    coordinators: Coordinators,
    cluster: Cluster,
) -> dict[tuple[str, ...], set[str]]:
    """Which users lose the right in which accounts. Pure.

    That is in ``account``, and below it wherever the user is not a member: a member keeps a right
    that the site gave there. ``users`` of ``None`` means everybody who has it.
    """
    rights: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    everybody = frozenset[str]().union(*(coordinators.get(name, frozenset()) for name in tree))
    for user in everybody if users is None else everybody.intersection(users):
        accounts = tuple(
            name
            for name in sorted(tree)
            if user in coordinators.get(name, ())
            and (name == account or user not in cluster.accounts[name].users)
        )
        if accounts and is_removable(user):
            rights[accounts].add(user)
    return dict(rights)


def _with_those_below(account: str, cluster: Cluster) -> frozenset[str]:
    found = {account}
    waiting = [account]
    while waiting:
        below = set(cluster.children(waiting.pop())) - found
        found |= below
        waiting += below
    return frozenset(found)


def _warn_of_what_is_left(work: Work, leaving: Mapping[Task, Collection[str] | None]) -> None:
    """Say who has the right still: by an account above, which is not what is left here."""
    left = work.client.coordinators({task.account for task in leaving})
    for task, users in leaving.items():
        listed = left.get(task.account, frozenset())
        for user in sorted(listed if users is None else listed.intersection(users)):
            account = work.cluster.find(task.account)
            above = (account.parent if account is not None else None) or "root"
            _log.warning(
                "%s leaves %s but is a coordinator of an account above it, and can come back; if "
                "that is not meant, look at 'sacctmgr show account withcoord' and run: sacctmgr "
                "remove coordinator account=%s names=%s",
                *(user, task.account, above, user),
            )
