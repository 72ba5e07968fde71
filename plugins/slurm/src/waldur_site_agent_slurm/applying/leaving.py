"""Removing members: end their jobs, give them another default account, then remove them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError, RemoveMembers
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.applying.administrators import keep_administrators
from waldur_site_agent_slurm.applying.coordinators import take_rights
from waldur_site_agent_slurm.applying.ending_jobs import jobs_in_the_way, still_there
from waldur_site_agent_slurm.errors import JobsActiveError
from waldur_site_agent_slurm.names import account_name, is_removable, listed_user_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from waldur_site_agent.backends import SiteAgentError, TemporaryError
    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.commands import Argv
    from waldur_site_agent_slurm.facts import Cluster, Job


def remove_members(work: Work, tasks: Iterable[Task]) -> None:
    """Carry out the removals of a batch."""
    leaving: dict[Task, frozenset[str]] = {}
    refused: dict[Task, SiteAgentError] = {}
    for task in tasks:
        if isinstance(task.action, RemoveMembers):
            with work.ledger.attempt(task):
                users, refusal = _present(work, task.action)
                if users:
                    leaving[task] = users
                if refusal is not None:
                    refused[task] = refusal
    for task, failure in take_rights(work, leaving).items():
        refused.setdefault(task, failure)
    cancel = work.settings.cancel_jobs_on_removal
    busy = jobs_in_the_way(work, leaving, cancel=cancel)
    free = {
        task: leaving[task] - _with_jobs(leaving[task], busy[task])
        for task in work.ledger.alive(leaving)
    }
    bound = find_other_defaults(work, {task: users for task, users in free.items() if users})
    for task in work.ledger.alive(free):
        with work.ledger.attempt(task):
            last = bound.get(task, frozenset())
            remove_users(work, task, free[task] - last)
            remove_users(work, task, last)
            if busy[task]:
                raise still_there(work, task.account, busy[task], cancelled=cancel)
    for task, error in refused.items():
        with work.ledger.attempt(task):
            raise error


def _with_jobs(users: frozenset[str], jobs: Sequence[Job]) -> frozenset[str]:
    owners = {job.user.lower() for job in jobs}
    return frozenset(user for user in users if user.lower() in owners)


def remove_users(work: Work, task: Task, users: frozenset[str]) -> None:
    """End the associations of users with the task's account.

    The users either all have it as their default account, or none of them: Slurm refuses the
    whole command when it meets a default account after an association that is none.
    """
    several = in_several_partitions(work, task, users)
    for portion in commands.chunks(users - several):
        work.ledger.writes(task)
        argv = commands.remove_users(portion, task.account, work.only)
        write_when_jobs_are_over(work, argv, len(portion))
    for portion in commands.chunks(several):
        work.ledger.writes(task)
        argv = commands.remove_users_everywhere(portion, work.only)
        write_when_jobs_are_over(work, argv, len(portion))


def in_several_partitions(work: Work, task: Task, users: frozenset[str]) -> frozenset[str]:
    """Return the users that Slurm does not let out of this account, their last one.

    Of their associations for several partitions one is the default account. Such users are
    removed as a whole; those who keep another account got another default before.
    """
    members = work.cluster.accounts[task.account].members
    return frozenset(
        user
        for user in users
        if user in members
        and members[user].associations > 1
        and work.cluster.accounts_of(user) == {task.account}
    )


def find_other_defaults(
    work: Work, leaving: Mapping[Task, frozenset[str]]
) -> Mapping[Task, frozenset[str]]:
    """Change the default account of everybody whose default is the account to be left.

    Users without another account keep it as their default until they lose it, and with it their
    record: these are returned, by task.
    """
    bound: dict[Task, frozenset[str]] = dict.fromkeys(leaving, frozenset())
    if not leaving:
        return bound
    tasks = tuple(leaving)
    with work.ledger.attempt(*tasks):
        records = work.client.users()
        kept = keep_administrators(work, leaving, records)
        defaults = {
            user: work.settings.default_account if user in kept else record.default_account
            for user, record in records.items()
        }
        moves = new_defaults(
            work.cluster,
            {task.account: users for task, users in leaving.items()},
            defaults,
            work.settings.default_account,
        )
        for account, users in sorted(moves.items()):
            concerned = [task for task in tasks if not leaving[task].isdisjoint(users)]
            with work.ledger.attempt(*concerned):
                for portion in commands.chunks(users):
                    work.ledger.writes(*concerned)
                    argv = commands.set_default_account(portion, account, work.only)
                    work.client.write(argv, len(portion))
        moved = {user for users in moves.values() for user in users}
        for task in tasks:
            still = (user for user in leaving[task] - moved if defaults.get(user) == task.account)
            bound[task] = frozenset(still)
    return bound


def new_defaults(
    cluster: Cluster,
    leaving: Mapping[str, frozenset[str]],
    defaults: Mapping[str, str],
    preferred: str,
) -> dict[str, set[str]]:
    """Return which users get which new default account. Pure.

    ``leaving`` says who leaves which account. The new default is ``preferred`` where the user has
    it, otherwise the first by name of the accounts that the user keeps.
    """
    moves: defaultdict[str, set[str]] = defaultdict(set)
    for account, users in leaving.items():
        for user in users:
            if defaults.get(user) != account:
                continue
            kept = {a for a in cluster.accounts_of(user) if user not in leaving.get(a, ())}
            if kept:
                moves[preferred if preferred in kept else min(kept)].add(user)
    return dict(moves)


def write_when_jobs_are_over(work: Work, argv: Argv, names: int) -> None:
    """Run a removal, again while slurmdbd has not heard yet that the jobs ended.

    Raises:
        JobsActiveError: it still had not when the patience was over.
    """
    refusal: TemporaryError | None = None
    for _ in work.patience.looks():
        try:
            work.client.write(argv, names)
        except JobsActiveError as error:
            refusal = error
        else:
            return
    raise refusal or JobsActiveError("no time was given to wait for jobs to end")


def _present(work: Work, action: RemoveMembers) -> tuple[frozenset[str], PermanentError | None]:
    """Who of those to be removed is in the account, as listed; and why one cannot be removed."""
    account = work.cluster.find(account_name(action.resource, "account"))
    found: set[str] = set()
    refusal: PermanentError | None = None
    users = account.users if account is not None else frozenset()
    for member in action.members:
        listed = work.listed_as(member, users)
        try:
            if listed is not None:
                found.add(listed_user_name(listed))
        except PermanentError as error:
            refusal = PermanentError(f"{action.resource}: {error.problem}", remedy=error.remedy)
    return frozenset(found), refusal


def removable(users: Iterable[str]) -> frozenset[str]:
    """Those whose names no command would misread; the others go with the account."""
    return frozenset(user for user in users if is_removable(user))
