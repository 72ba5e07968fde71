"""Budgets of a period: fairshare, limits on TRES-minutes, RawUsage, and what is used of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from waldur_site_agent.backends import Consumption, ResetUsage, SetBudget, TemporaryError
from waldur_site_agent.backends.command_line import AnyTask, Task
from waldur_site_agent_slurm import commands, tres
from waldur_site_agent_slurm.client import SlurmClient, Work
from waldur_site_agent_slurm.controller import Controller, Limits, parse_assoc_mgr
from waldur_site_agent_slurm.facts import Account, Cluster, Share
from waldur_site_agent_slurm.limits import limits_of, usable_account
from waldur_site_agent_slurm.settings import SlurmSettings

_Limits = frozenset[tuple[str, int | None]]
_Change = tuple[int | None, _Limits, bool]
"""Share, limits, and whether they are those of single jobs."""
_RULE = "GrpTRESMins "
_ONE_USER = ("root",)
"""Whose associations are shown besides those of the accounts: without any, everybody's are."""


def share_of(account: str, cluster: Cluster) -> Share:
    """What an account has of a budget besides GrpTRESMins."""
    return cluster.shares.get(account, Share())


def set_budgets(work: Work, tasks: Iterable[Task[SetBudget]]) -> None:
    """Carry out the budgets of a batch; accounts with the same change share one command."""
    same: defaultdict[_Change, list[Task[SetBudget]]] = defaultdict(list)
    for task in tasks:
        with work.ledger.attempt(task):
            share, limits = _change(usable_account(work, task), task.action, work)
            if share is not None or limits:
                same[share, limits, task.action.per_job].append(task)
    for change, alike in same.items():
        for portion in commands.chunks(task.account for task in alike):
            concerned = [task for task in alike if task.account in portion]
            with work.ledger.attempt(*concerned):
                work.ledger.writes(*concerned)
                _write(work, portion, change)


def _change(account: Account, action: SetBudget, work: Work) -> tuple[int | None, _Limits]:
    has = share_of(account.name, work.now)
    wanted = {
        name: None if amount is None else tres.whole_amount(name, amount, action.resource)
        for name, amount in action.limits.items()
    }
    if wanted and work.settings.limits_are_on_qos and account.name not in work.now.qos:
        raise TemporaryError(
            f"{account.name}: no budget can be set: apply_limits_to_qos is on, and there is no QOS "
            f"{account.name!r}; an administrator makes it: sacctmgr add qos {account.name}, and "
            "adds it to the QOS list of the account"
        )
    found = has.job_limits if action.per_job else limits_of(account, work.now, work.settings)
    limits = frozenset((n, v) for n, v in wanted.items() if not tres.is_set_to(n, found, v))
    share = action.share if action.share != has.fairshare else None
    return share, limits


def _write(work: Work, accounts: tuple[str, ...], change: _Change) -> None:
    share, limits, per_job = change
    limit_type = "MaxTRESMins" if per_job else "GrpTRESMins"
    of_account = dict(limits)
    if limits and work.settings.limits_are_on_qos:
        argv = commands.set_qos_budget(accounts, dict(limits), limit_type)
        work.client.change(argv, len(accounts))
        of_account = {}
    if share is not None or of_account:
        argv = commands.set_budget(accounts, share, of_account, limit_type, work.only)
        work.client.change(argv, len(accounts))


def budget_difference(action: SetBudget, cluster: Cluster, settings: SlurmSettings) -> str:
    """What the cluster shows instead of a budget; empty where that is there."""
    account = cluster.accounts[action.resource.lower()]
    has = share_of(account.name, cluster)
    found = has.job_limits if action.per_job else limits_of(account, cluster, settings)
    wrong = sorted(
        name
        for name, amount in action.limits.items()
        if not tres.is_set_to(name, found, None if amount is None else int(amount))
    )
    shown = [f"{name}={found.get(name, 'nothing')}" for name in wrong]
    if action.share not in (None, has.fairshare):
        shown.append(f"fairshare={'parent' if has.fairshare is None else has.fairshare}")
    return f"another budget ({', '.join(shown)})" if shown else ""


def reset_usage(work: Work, tasks: Iterable[Task[ResetUsage]]) -> None:
    """Carry out the resets of a batch; what is reset already is left alone."""
    due: list[Task[ResetUsage]] = []
    for task in tasks:
        with work.ledger.attempt(task):
            usable_account(work, task)
            due.append(task)
    counted: Mapping[str, Mapping[str, Decimal]] = {}
    with work.ledger.attempt(*due):
        counted = _counted(work, due)
    due = [task for task in work.ledger.alive(due) if _is_due(work, task, counted)]
    entity = "qos" if work.settings.limits_are_on_qos else "account"
    for portion in commands.chunks(task.account for task in due):
        concerned = [task for task in due if task.account in portion]
        with work.ledger.attempt(*concerned):
            work.ledger.writes(*concerned)
            work.client.change(commands.reset_usage(entity, portion, work.now.name), len(portion))
            _check_reset(work, concerned)


def _is_due(
    work: Work, task: Task[ResetUsage], counted: Mapping[str, Mapping[str, Decimal]]
) -> bool:
    with work.ledger.attempt(task):
        return bool(too_much_counted(task.action, _of(task.account, counted)))
    return False


def _of(account: str, counted: Mapping[str, Mapping[str, Decimal]]) -> Mapping[str, Decimal]:
    if account not in counted:
        raise TemporaryError(
            f"{account}: slurmctld does not list its usage; look at: scontrol show assoc_mgr "
            f"accounts={account} flags=assoc; where PrivateData hides it, the agent's user "
            "needs adminlevel=operator"
        )
    return counted[account]


def _check_reset(work: Work, tasks: Iterable[Task[ResetUsage]]) -> None:
    """Read back at once: the longer it takes, the more is counted again."""
    concerned = list(tasks)
    counted = _counted(work, concerned)
    for task in concerned:
        left: dict[str, Decimal] = {}
        with work.ledger.attempt(task):
            left = too_much_counted(task.action, _of(task.account, counted))
        if left:
            shown = ", ".join(f"{name} {amount}" for name, amount in sorted(left.items()))
            work.ledger.errors[task.index] = TemporaryError(
                f"{task.account}: its usage was reset for {task.action.period}, but slurmctld "
                f"still counts {shown}; it is tried again; look at: sshare -l -A {task.account}"
            )


def _counted(work: Work, tasks: Iterable[AnyTask]) -> Mapping[str, Mapping[str, Decimal]]:
    return counted_usage(work.client, [task.account for task in tasks], work.settings)


def counted_usage(
    client: SlurmClient, accounts: Iterable[str], settings: SlurmSettings
) -> Mapping[str, Mapping[str, Decimal]]:
    """What slurmctld counts against the limits of accounts, or of their QOS; if it lists them."""
    names = sorted({name.lower() for name in accounts})
    if not names:
        return {}
    found = client.counted(names, of_qos=settings.limits_are_on_qos)
    return {name: found[name] for name in names if name in found}


def too_much_counted(action: ResetUsage, counted: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """What is counted beyond the usage of the period that has begun; nothing after a reset."""
    return {
        name: counted[name]
        for name, used in action.used.items()
        if name in counted and counted[name] > used
    }


def read_consumption(
    client: SlurmClient, accounts: Iterable[str]
) -> Mapping[str, Mapping[str, Consumption]]:
    """What is used of ``GrpTRESMins``, by account and TRES, both in TRES-minutes.

    The limit is that of the account itself, or of a QOS with the account's name.

    Raises:
        TemporaryError: slurmctld did not answer.
    """
    found: dict[str, Mapping[str, Consumption]] = {}
    for portion in commands.chunks(set(accounts)):
        said = client.ask(commands.show_enforced(portion, _ONE_USER, portion, client.cluster))
        controller = parse_assoc_mgr(said)
        found |= {account: _consumption(account, controller) for account in portion}
    return {account: used for account, used in found.items() if used}


def _consumption(account: str, controller: Controller) -> dict[str, Consumption]:
    association, qos = controller.of_account(account), controller.qos.get(account)
    limits = [each.limits for each in (qos, association) if each is not None]
    return {name: used for each in limits for name, used in _consumed(each).items()}


def _consumed(limits: Limits) -> dict[str, Consumption]:
    return {
        key.removeprefix(_RULE): Consumption(limit.limit, limit.used)
        for key, limit in limits.items()
        if key.startswith(_RULE) and limit.limit is not None
    }
