"""Adding and removing members; accounts with the same people to add or remove share commands."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import TypeAlias

from waldur_site_agent.backends import (
    AddMembers,
    PermanentError,
    RemoveMembers,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.backends.command_line import AnyTask, BackendUnavailableError, Task
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm import names as usernames
from waldur_site_agent_slurm.answers import JobsActiveError
from waldur_site_agent_slurm.client import Work
from waldur_site_agent_slurm.commands import Argv
from waldur_site_agent_slurm.facts import ROOT, Cluster, Job, UserRecord
from waldur_site_agent_slurm.grouping import grouped, together
from waldur_site_agent_slurm.limits import usable_account
from waldur_site_agent_slurm.names import (
    account_name,
    is_account_name,
    is_removable,
    listed_user_name,
)


def add_members(work: Work, tasks: Iterable[Task[AddMembers]]) -> None:
    """Carry out the additions of a batch."""
    exists = cache(work.user_exists)
    tasks = list(tasks)
    with work.ledger.attempt(*tasks):
        _find_strangers(work, {name for task in tasks for name in task.action.members})
    joining: dict[Task[AddMembers], frozenset[str]] = {}
    for task in work.ledger.alive(tasks):
        with work.ledger.attempt(task):
            account = usable_account(work, task)
            _refuse_unknown_qos(work, task)
            joining[task] = _servable(work, task, task.action, exists) - account.users
    if work.settings.default_account_policy == "common":
        _introduce(work, joining)
    own_default = work.settings.default_account_policy == "individual"
    alive = {task: joining[task] for task in work.ledger.alive(joining)}
    for users, alike in grouped(
        alive, lambda task: (task.action.grant, task.account if own_default else "")
    ):
        together(work.ledger, alike, partial(_add, work, users))


def _find_strangers(work: Work, names: Collection[str]) -> None:
    """Where only some accounts were read, ask for those who are in none of them."""
    if work.now.asked is not None:
        known = work.now.users
        work.records_of([n for n in names if n not in known and usernames.is_user_name(n)])


def _add(work: Work, users: Sequence[str], tasks: Sequence[Task[AddMembers]]) -> None:
    accounts = [task.account for task in tasks]
    settings = work.settings
    argv = commands.add_users(
        users,
        accounts,
        tasks[0].action.grant,
        work.only,
        default_account=accounts[0] if settings.default_account_policy == "individual" else "",
        fairshare="parent" if settings.fairshare_of_members == "parent" else "",
    )
    work.client.change(argv, len(users) * len(accounts))
    for account in accounts:
        work.note_members(account, users)
        work.added[account] = work.added.get(account, frozenset()).union(users)


def _refuse_unknown_qos(work: Work, task: Task[AddMembers]) -> None:
    qos = task.action.grant.qos
    if qos and qos not in work.client.qos_names():
        raise TemporaryError(
            f"{task.account}: nobody is added yet: the QOS {qos!r}, which was ordered, does not "
            f"exist in Slurm; an administrator makes it: sacctmgr add qos {qos}"
        )


def _servable(
    work: Work, task: AnyTask, action: AddMembers, exists: Callable[[str], bool]
) -> frozenset[str]:
    servable = set()
    for member in action.members:
        try:
            name = usernames.name_to_add(member, work.now, work.client.keeps_case, work.system_name)
        except PermanentError as error:
            work.ledger.leave_out(task, member, error)
            continue
        if work.settings.require_system_user and not exists(name):
            work.ledger.leave_out(task, member, _waits(name, action.resource))
        elif name.isdigit() and name not in work.now.users and not exists(name):
            work.ledger.leave_out(task, member, _is_a_number(name))
        else:
            servable.add(name)
    return frozenset(servable)


def _waits(name: str, resource: str) -> TemporaryError:
    return TemporaryError(
        f"{resource}: {name} waits: the operating system does not know this user yet, and Slurm "
        "would refuse the user's jobs; make the user known, or set require_system_user: false"
    )


def _is_a_number(name: str) -> PermanentError:
    return PermanentError(
        f"{name} cannot be served: the operating system has no user of this name, and Slurm would "
        f"take it for whoever has the number {name}, who could lose a default account or an "
        "AdminLevel",
        remedy="give the person a username with a letter, or make the user known on this machine",
    )


def _introduce(work: Work, joining: Mapping[AnyTask, frozenset[str]]) -> None:
    """Give users that are new to the cluster their default account.

    ``root`` is closed to them: with DefaultAccount=root sacctmgr also associates them with the
    root account, where no limit would hold them.
    """
    new = frozenset().union(*joining.values()) - work.now.users
    default = work.settings.default_account
    for portion in commands.chunks(new):
        concerned = [task for task, users in joining.items() if not users.isdisjoint(portion)]
        with work.ledger.attempt(*concerned):
            if work.now.find(default) is None:
                raise TemporaryError(
                    f"the account {default!r} that new users get as their default does not exist "
                    "in the cluster; make it, or set another default_account in backend_settings"
                )
            work.ledger.writes(*concerned)
            closed = default == ROOT
            argv = commands.introduce_users(portion, default, closed=closed, cluster=work.only)
            work.client.change(argv, len(portion))
            work.note_members(default, portion)


Leaving: TypeAlias = Mapping[AnyTask, Collection[str] | None]


def jobs_in_the_way(
    work: Work, leaving: Leaving, *, cancel: bool
) -> Mapping[AnyTask, Sequence[Job]]:
    """Return the jobs of these users (``None``: of everybody) in the accounts of the tasks.

    With ``cancel`` they are cancelled first, and those are returned that do not end in time.
    Without slurmctld all tasks fail, because nobody knows whether there are jobs.
    """
    found: defaultdict[AnyTask, list[Job]] = defaultdict(list)
    tasks = tuple(leaving)
    if not tasks:
        return found
    with work.ledger.attempt(*tasks):
        jobs = _cancel_and_wait(work, leaving) if cancel else _jobs(work, leaving)
        for task in tasks:
            found[task] += (job for job in jobs if _concerns(job, task, leaving))
    return found


def still_there(
    work: Work, account: str, jobs: Sequence[Job], *, cancelled: bool
) -> TemporaryError:
    """Return the trouble that jobs in the way of a removal are."""
    numbers, users = _some(job.id for job in jobs), _some({job.user for job in jobs})
    if cancelled:
        return TemporaryError(
            f"{account}: {len(jobs)} jobs of {users} were cancelled but are still in the queue "
            f"after {work.patience.seconds:g} seconds ({numbers}); it is tried again; if they "
            "stay, look at their nodes with: scontrol show job"
        )
    return TemporaryError(
        f"{account}: {users} stays until {len(jobs)} jobs are over ({numbers}), because "
        "cancel_jobs_on_removal is false; it is tried again; to end them now: scancel"
    )


def _jobs(work: Work, leaving: Leaving) -> list[Job]:
    return [
        job
        for job in work.client.jobs({task.account for task in leaving})
        if any(_concerns(job, task, leaving) for task in leaving)
    ]


def _cancel_and_wait(work: Work, leaving: Leaving) -> list[Job]:
    cancelled: set[str] = set()
    jobs: list[Job] = []
    for _ in work.patience.looks():
        jobs = _jobs(work, leaving)
        if not jobs:
            break
        work.client.cancel(job for job in jobs if job.id not in cancelled)
        cancelled.update(job.id for job in jobs)
    return jobs


def _concerns(job: Job, task: AnyTask, leaving: Leaving) -> bool:
    users = leaving[task]
    # the database does not tell case apart, so neither does the removal of an association
    is_theirs = users is None or job.user.lower() in {user.lower() for user in users}
    return job.account == task.account and is_theirs


def _some(names: Iterable[str]) -> str:
    most = 5
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")


Coordinators = Mapping[str, frozenset[str]]

_log = logging.getLogger(__name__)


def take_rights(
    work: Work, leaving: Mapping[AnyTask, Collection[str] | None]
) -> Mapping[AnyTask, SiteAgentError]:
    """Take the right of coordinators among those who leave (``None``: of everybody).

    Returns:
        By task, why a right is not known to be taken. The association is removed all the same,
        but the action has failed.
    """
    failures: dict[AnyTask, SiteAgentError] = {}
    if not leaving:
        return failures
    try:
        _read_those_below(work, {task.account for task in leaving})
        trees = {task: _with_those_below(task.account, work.now) for task in leaving}
        found = work.client.coordinators({name for tree in trees.values() for name in tree})
    except BackendUnavailableError:
        raise
    except TemporaryError as error:
        return dict.fromkeys(leaving, error)
    taken: dict[AnyTask, Collection[str] | None] = {}
    for task, users in leaving.items():
        rights = rights_to_take(task.account, trees[task], users, found, work.now)
        try:
            _take(work, task, rights)
        except BackendUnavailableError:
            raise
        except TemporaryError as error:
            failures[task] = error
        if rights:
            taken[task] = users
    if taken:
        _warn_of_what_is_left(work, taken)
    return failures


def _take(work: Work, task: AnyTask, rights: Mapping[tuple[str, ...], Collection[str]]) -> None:
    for accounts, people in rights.items():
        for portion in commands.chunks(people):
            work.ledger.writes(task)
            work.client.change(commands.remove_coordinators(portion, accounts), len(portion))


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


def _read_those_below(work: Work, accounts: Collection[str]) -> None:
    """Where only some accounts were read, read those below these, too."""
    if work.now.asked is None:
        return
    names = work.client.below(accounts, work.now.name) - work.now.accounts.keys()
    if names:
        can_be_asked = len(names) <= commands.NAMES_PER_COMMAND and all(map(is_account_name, names))
        work.now = work.now.joined(work.client.accounts(names if can_be_asked else None))


def _with_those_below(account: str, cluster: Cluster) -> frozenset[str]:
    found = {account}
    waiting = [account]
    while waiting:
        below = set(cluster.children(waiting.pop())) - found
        found |= below
        waiting += below
    return frozenset(found)


def _warn_of_what_is_left(work: Work, leaving: Mapping[AnyTask, Collection[str] | None]) -> None:
    """Say who has the right still: by an account above, which is not what is left here."""
    left = work.client.coordinators({task.account for task in leaving})
    for task, users in leaving.items():
        listed = left.get(task.account, frozenset())
        for user in sorted(listed if users is None else listed.intersection(users)):
            account = work.now.find(task.account)
            above = (account.parent if account is not None else None) or "root"
            _log.warning(
                "%s leaves %s but is a coordinator of an account above it, and can come back; if "
                "that is not intended, look at 'sacctmgr show account withcoord' and run: sacctmgr "
                "remove coordinator account=%s names=%s",
                *(user, task.account, above, user),
            )


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
    work: Work, leaving: Mapping[AnyTask, frozenset[str]], records: Mapping[str, UserRecord]
) -> frozenset[str]:
    """Associate them with the default account, as users are who are new to the cluster.

    Returns:
        Those who have another default account now.
    """
    default = work.settings.default_account
    by_account = {task.account: users for task, users in leaving.items() if task.account != default}
    admins = leaving_administrators(work.now, by_account, records)
    kept: set[str] = set()
    for portion in commands.chunks(admins):
        concerned = [task for task in leaving if not leaving[task].isdisjoint(portion)]
        with work.ledger.attempt(*concerned):
            work.ledger.writes(*concerned)
            closed = default == ROOT
            argv = commands.introduce_users(portion, default, closed=closed, cluster=work.only)
            work.client.change(argv, len(portion))
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


def remove_members(work: Work, tasks: Iterable[Task[RemoveMembers]]) -> None:
    """Carry out the removals of a batch."""
    leaving: dict[AnyTask, frozenset[str]] = {}
    refused: dict[AnyTask, SiteAgentError] = {}
    for task in tasks:
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
    remove_together(work, {task: free[task] - bound.get(task, frozenset()) for task in free})
    for task in work.ledger.alive(free):
        with work.ledger.attempt(task):
            remove_users(work, task, bound.get(task, frozenset()))
            if busy[task]:
                raise still_there(work, task.account, busy[task], cancelled=cancel)
    for task, error in refused.items():
        with work.ledger.attempt(task):
            raise error


def _with_jobs(users: frozenset[str], jobs: Sequence[Job]) -> frozenset[str]:
    owners = {job.user.lower() for job in jobs}
    return frozenset(user for user in users if user.lower() in owners)


def remove_together(work: Work, leaving: Mapping[AnyTask, frozenset[str]]) -> None:
    """End the associations of users with several accounts, of which none is their default."""
    plain: dict[AnyTask, frozenset[str]] = {}
    for task in work.ledger.alive(leaving):
        several = in_several_partitions(work, task, leaving[task])
        with work.ledger.attempt(task):
            remove_users(work, task, several)
            plain[task] = leaving[task] - several
    for users, alike in grouped(plain):
        together(work.ledger, alike, partial(_remove, work, users))


def _remove(work: Work, users: Sequence[str], tasks: Sequence[AnyTask]) -> None:
    argv = commands.remove_users(users, [task.account for task in tasks], work.only)
    names = len(users) * len(tasks)
    if len(tasks) == 1:
        write_when_jobs_are_over(work, argv, names)
    else:  # jobs of any of them would hold up all
        work.client.change(argv, names)


def remove_users(work: Work, task: AnyTask, users: frozenset[str]) -> None:
    """End the associations of users with the task's account.

    The users either all have it as their default account, or none of them: Slurm refuses the
    whole command when it meets a default account after an association that is none.
    """
    several = in_several_partitions(work, task, users)
    for portion in commands.chunks(users - several):
        work.ledger.writes(task)
        argv = commands.remove_users(portion, (task.account,), work.only)
        write_when_jobs_are_over(work, argv, len(portion))
    for portion in commands.chunks(several):
        work.ledger.writes(task)
        argv = commands.remove_users_everywhere(portion, work.only)
        write_when_jobs_are_over(work, argv, len(portion))


def in_several_partitions(work: Work, task: AnyTask, users: frozenset[str]) -> frozenset[str]:
    """Return the users that Slurm does not let out of this account, their last one.

    Of their associations for several partitions one is the default account. Such users are
    removed as a whole; those who keep another account got another default before.
    """
    members = work.now.accounts[task.account].members
    return frozenset(
        user
        for user in users
        if user in members
        and members[user].associations > 1
        and work.now.accounts_of(user) == {task.account}
    )


def find_other_defaults(
    work: Work, leaving: Mapping[AnyTask, frozenset[str]]
) -> Mapping[AnyTask, frozenset[str]]:
    """Change the default account of everybody whose default is the account to be left.

    Users without another account keep it as their default until they lose it, and with it their
    record: these are returned, by task.
    """
    bound: dict[AnyTask, frozenset[str]] = dict.fromkeys(leaving, frozenset())
    if not leaving:
        return bound
    tasks = tuple(leaving)
    with work.ledger.attempt(*tasks):
        records = work.records_of(frozenset().union(*leaving.values()))
        kept = keep_administrators(work, leaving, records)
        defaults = {
            user: work.settings.default_account if user in kept else record.default_account
            for user, record in records.items()
        }
        moves = new_defaults(
            work.now,
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
                    work.client.change(argv, len(portion))
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
            work.client.change(argv, names)
        except JobsActiveError as error:
            refusal = error
        else:
            return
    raise refusal or JobsActiveError("no time was given to wait for jobs to end")


def _present(work: Work, action: RemoveMembers) -> tuple[frozenset[str], PermanentError | None]:
    """Who of those to be removed is in the account, as listed; and why one cannot be removed."""
    account = work.now.find(account_name(action.resource, "account"))
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
