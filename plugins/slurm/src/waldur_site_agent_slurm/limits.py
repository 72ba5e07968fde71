"""Setting and clearing limits: accounts with the same change share one command."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TypeAlias

from waldur_site_agent.backends import (
    Access,
    PermanentError,
    SetAccess,
    SetLimits,
    SetMemberLimits,
    TemporaryError,
    resource_of,
)
from waldur_site_agent.backends.command_line import AnyTask, Task
from waldur_site_agent_slurm import commands, tres
from waldur_site_agent_slurm.client import Work
from waldur_site_agent_slurm.facts import Account, Cluster, Member
from waldur_site_agent_slurm.grouping import together
from waldur_site_agent_slurm.names import account_name, listed_user_name, user_name
from waldur_site_agent_slurm.qos import (
    RESTRICTED,
    Qos,
    Setup,
    Target,
    access_of,
    before_restriction,
    is_set_to,
    refuse_unknown,
    restriction,
)
from waldur_site_agent_slurm.settings import SlurmSettings

Change: TypeAlias = frozenset[tuple[str, int | None]]


def set_limits(work: Work, tasks: Iterable[Task[SetLimits]]) -> None:
    """Carry out the limit changes of a batch."""
    same: defaultdict[Change, list[Task[SetLimits]]] = defaultdict(list)
    for task in tasks:
        with work.ledger.attempt(task):
            change = _change(work, task, task.action)
            if change:
                same[change].append(task)
    for change, alike in same.items():
        for portion in commands.chunks(task.account for task in alike):
            concerned = [task for task in alike if task.account in portion]
            together(work.ledger, concerned, partial(_write_limits, work, dict(change)))


def _write_limits(work: Work, limits: Mapping[str, int | None], tasks: Sequence[AnyTask]) -> None:
    accounts = sorted(task.account for task in tasks)
    if work.settings.limits_are_on_qos:
        argv = commands.set_qos_limits(accounts, limits)
    else:
        argv = commands.set_limits(accounts, limits, work.only)
    work.client.change(argv, len(accounts))


def usable_account(work: Work, task: AnyTask) -> Account:
    """Return the account that an action is about.

    Raises:
        PermanentError: the name cannot be used, or there is no such account.
    """
    name = account_name(resource_of(task.action), "account")
    account = work.now.find(name)
    if account is None:
        raise PermanentError(
            f'{name}: there is no Slurm account "{name}" in cluster {work.now.name}; '
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


def _change(work: Work, task: AnyTask, action: SetLimits) -> Change:
    account = usable_account(work, task)
    if work.settings.limits_are_on_qos and account.name not in work.now.qos:
        raise TemporaryError(
            f"{account.name}: no limit can be set: apply_limits_to_qos is on, and there is no QOS "
            f"{account.name!r}; an administrator makes it: sacctmgr add qos {account.name}, and "
            "adds it to the QOS list of the account"
        )
    found = limits_of(account, work.now, work.settings)
    wanted = amounts(action).items()
    return frozenset((n, v) for n, v in wanted if not tres.is_set_to(n, found, v))


def limits_of(account: Account, cluster: Cluster, settings: SlurmSettings) -> Mapping[str, Decimal]:
    """The limits of a resource: those of its account, or of its QOS where they are set there."""
    if not settings.limits_are_on_qos:
        return account.limits
    record = cluster.qos.get(account.name)
    return record.limits if record is not None else {}


def set_member_limits(work: Work, tasks: Iterable[Task[SetMemberLimits]]) -> None:
    """Carry out the changes of members' limits of a batch."""
    same: defaultdict[tuple[str, Change], dict[str, Task[SetMemberLimits]]] = defaultdict(dict)
    for task in tasks:
        with work.ledger.attempt(task):
            user, change = _change_member(work, task, task.action)
            if change:
                same[task.account, change][user] = task
    for (account, change), alike in same.items():
        for portion in commands.chunks(alike):
            concerned = [alike[user] for user in portion]
            with work.ledger.attempt(*concerned):
                work.ledger.writes(*concerned)
                argv = commands.set_member_limits(portion, account, dict(change), work.only)
                work.client.change(argv, len(portion))


def _change_member(work: Work, task: AnyTask, action: SetMemberLimits) -> tuple[str, Change]:
    """The user as the cluster lists the member, and what is to be changed."""
    account = usable_account(work, task)
    listed = work.listed_as(action.member, account.users)
    user = listed_user_name(listed) if listed is not None else user_name(action.member)
    found = account.members.get(user, Member()).limits
    change = frozenset(
        (name, amount)
        for name, amount in amounts(action).items()
        if not tres.is_set_to(name, found, amount)
    )
    if change and user not in account.users:
        raise TemporaryError(
            f"{account.name}: no limit can be set for {user}, who is not a member; it is set "
            "when the user has joined"
        )
    if change:
        _refuse_unknown(action, {name for name, _ in change} - work.client.tres_names())
    return user, change


def _refuse_unknown(action: SetMemberLimits, unknown: Iterable[str]) -> None:
    names = ", ".join(repr(name) for name in sorted(unknown))
    if names:
        raise PermanentError(
            f"{action.resource}: no limit can be set for {action.member} on {names}: the cluster "
            "does not count it; compare with 'sacctmgr show tres', add it to "
            "AccountingStorageTRES in slurm.conf or name another component"
        )


def set_access(work: Work, tasks: Iterable[Task[SetAccess]]) -> None:
    """Carry out the access changes of a batch."""
    targets: dict[Task[SetAccess], Target] = {}
    for task in tasks:
        with work.ledger.attempt(task):
            target = _target(work, task, task.action)
            if target is not None:
                if target.all_names():
                    refuse_unknown(task.account, target, work.client.qos_names())
                targets[task] = target
    for task, target in targets.items():
        if target.setup.qos is not None:
            with work.ledger.attempt(task):
                _free_members(work, task)
    same: defaultdict[Setup, list[AnyTask]] = defaultdict(list)
    for task in work.ledger.alive(targets):
        same[targets[task].setup].append(task)
    for setup, alike in same.items():
        for portion in commands.chunks(task.account for task in alike):
            concerned = [task for task in alike if task.account in portion]
            together(work.ledger, concerned, partial(_write, work, setup))
    for task in work.ledger.alive(targets):
        with work.ledger.attempt(task):
            _set_members(work, task, targets[task].members)


def _target(work: Work, task: AnyTask, action: SetAccess) -> Target | None:
    """What the account is to get; ``None`` when it has it."""
    account = usable_account(work, task)
    if action.access is not Access.NORMAL:
        target = restriction(action.access, account, work.settings, action.restore)
        is_free = target.setup.qos is None or not _with_own_qos(work, task)
        return None if is_free and is_set_to(account, target.setup) else target
    if access_of(account, work.now, work.settings) not in RESTRICTED:
        return None
    return before_restriction(account, work.now, work.settings, action.restore)


def _with_own_qos(work: Work, task: AnyTask) -> list[str]:
    members = work.now.accounts[task.account].members
    return [user for user, member in members.items() if member.has_own_qos]


def _free_members(work: Work, task: AnyTask) -> None:
    """Let users with a QOS of their own inherit the account's.

    It would not reach them, and one of them is enough for Slurm to refuse the account's new
    default, and with it the whole command.
    """
    _set_members(work, task, dict.fromkeys(_with_own_qos(work, task), Qos()))


def _set_members(work: Work, task: AnyTask, members: Mapping[str, Qos]) -> None:
    same: defaultdict[Qos, list[str]] = defaultdict(list)
    for user in members.keys() & work.now.accounts[task.account].users:
        same[members[user]].append(user)
    for qos, users in same.items():
        for portion in commands.chunks(users):
            work.ledger.writes(task)
            argv = commands.set_member_qos(portion, task.account, qos.names, qos.default, work.only)
            work.client.change(argv, len(portion))


def _write(work: Work, setup: Setup, tasks: Sequence[AnyTask]) -> None:
    accounts = sorted(task.account for task in tasks)
    qos = None if setup.qos is None else (setup.qos.names, setup.qos.default)
    argv = commands.set_access(accounts, qos, setup.submit_limit, work.only)
    work.client.change(argv, len(tasks))
