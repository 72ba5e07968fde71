"""Keeping Slurm's administrators known when they leave their last account.

With the last association Slurm forgets the user and with it the AdminLevel: an administrator, or
the agent itself, would lose rights that no order and no team ever gave.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.names import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Cluster, UserRecord

_log = logging.getLogger(__name__)


def leaving_administrators(
    cluster: Cluster, leaving: Mapping[str, frozenset[str]], records: Mapping[str, UserRecord]
) -> frozenset[str]:
    """Who has an AdminLevel and is about to leave every account. Pure.

    ``leaving`` says who leaves which account.
    """
    left: defaultdict[str, set[str]] = defaultdict(set)
    for account, users in leaving.items():
        for user in users:
            left[user].add(account)
    return frozenset(
        user
        for user, accounts in left.items()
        if user in records and records[user].is_administrator
        if cluster.accounts_of(user) <= accounts
    )


def keep_administrators(
    work: Work, leaving: Mapping[Task, frozenset[str]], records: Mapping[str, UserRecord]
) -> frozenset[str]:
    """Associate them with the default account, as users are who are new to the cluster.

    Returns:
        Those who have another default account now.
    """
    default = work.settings.default_account
    by_account = {task.account: users for task, users in leaving.items() if task.account != default}
    admins = leaving_administrators(work.cluster, by_account, records)
    kept: set[str] = set()
    for portion in commands.chunks(admins):
        concerned = [task for task in leaving if not leaving[task].isdisjoint(portion)]
        with work.ledger.attempt(*concerned):
            work.ledger.writes(*concerned)
            closed = default == ROOT
            argv = commands.introduce_users(portion, default, closed=closed, cluster=work.only)
            work.client.write(argv, len(portion))
            work.note_members(default, portion)
            kept.update(portion)
    for user in sorted(kept):
        _log.warning(
            "%s leaves the last account and has AdminLevel %s in Slurm, which the agent does not "
            "take: an association with %s keeps the user known; to end it: sacctmgr modify user "
            "where name=%s set adminlevel=none",
            *(user, records[user].admin_level, default, user),
        )
    return frozenset(kept)
