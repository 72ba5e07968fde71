"""A QOS of its own for each account: made with it, attached to it, and removed before it."""

from __future__ import annotations

from collections.abc import Mapping

from waldur_site_agent.backends import PermanentError, TemporaryError
from waldur_site_agent.backends.command_line import AnyTask
from waldur_site_agent_slurm import commands, tres
from waldur_site_agent_slurm.client import Work
from waldur_site_agent_slurm.facts import Account, Cluster, QosRecord
from waldur_site_agent_slurm.qos import own_qos, qos_names
from waldur_site_agent_slurm.settings import SlurmSettings


def marked(account: str) -> str:
    """The description by which a QOS is recognised as made by the agent for an account."""
    return f"made by waldur-site-agent for account {account}"


def is_complete(account: Account, cluster: Cluster, settings: SlurmSettings) -> bool:
    """Whether an account has all that it was made with, or is one that never had a QOS.

    An account without a QOS list lacks it if its QOS is there, which is made first, or if it is
    bare: without users and with nothing to spend, as ``soft_delete`` leaves it.
    """
    if not settings.qos_management.enabled or account.qos:
        return True
    record = cluster.qos.get(account.name)
    is_bare = not account.users and not any(account.limits.values())
    return not (is_bare or (record is not None and is_ours(record, account)))


def is_ours(record: QosRecord, account: Account | None) -> bool:
    """Whether a QOS with an account's name is that account's own, and nothing else. Pure.

    Version 1 left no mark on what it made; there it is the account's default that tells.
    """
    if record.description == marked(record.name):
        return True
    return account is not None and account.default_qos == record.name


def ensure_qos(work: Work, task: AnyTask, name: str, limits: Mapping[str, int]) -> None:
    """Make the QOS of an account that is about to be made; one that is ours stays as it is.

    Raises:
        PermanentError: there is another QOS of this name.
        TemporaryError: an additional QOS does not exist.
    """
    management = work.settings.qos_management
    missing = sorted({n.lower() for n in management.additional_qos} - work.now.qos.keys())
    if missing:
        raise TemporaryError(
            f"{name}: its QOS list cannot be set: the QOS {missing[0]!r} (additional_qos of "
            f"backend_settings) does not exist in Slurm; an administrator makes it: sacctmgr add "
            f"qos {missing[0]}"
        )
    record = work.now.qos.get(name)
    if record is None:
        work.ledger.writes(task)
        work.client.change(commands.add_qos(name, marked(name), management.columns, limits))
        return
    if not is_ours(record, work.now.find(name)):
        raise PermanentError(
            f'{name}: cannot create: there is a QOS "{name}" that was not made for this account; '
            "rename it, or set another allocation_prefix"
        )
    _complete(work, task, record, limits)


def _complete(work: Work, task: AnyTask, record: QosRecord, limits: Mapping[str, int]) -> None:
    lacking = {name: v for name, v in limits.items() if not tres.is_set_to(name, record.limits, v)}
    if lacking:
        work.ledger.writes(task)
        work.client.change(commands.set_qos_limits((record.name,), lacking))


def attach_qos(work: Work, task: AnyTask, name: str) -> None:
    """Give an account without a QOS list its own, as default, with the inherited and more."""
    account = work.now.accounts[name]
    if account.qos:
        return
    setup = own_qos(account, work.now, work.settings)
    work.ledger.writes(task)
    argv = commands.set_access((name,), (setup.names, setup.default), None, work.only)
    work.client.change(argv)


def remove_qos(work: Work, task: AnyTask, name: str) -> None:
    """Remove the QOS of an account that is about to be removed.

    One that is somebody's default cannot be removed, so it is taken off the account before; the
    mark comes first, for a run that is interrupted in between.
    """
    record = work.now.qos.get(name) if work.settings.qos_management.enabled else None
    account = work.now.accounts[name]
    if record is None or not is_ours(record, account):
        return
    work.ledger.writes(task)
    if record.description != marked(name):
        work.client.change(commands.describe_qos(name, marked(name)))
    users = sorted(u for u, m in account.members.items() if name in (m.default_qos, m.qos))
    for portion in commands.chunks(users):
        work.client.change(commands.set_member_qos(portion, name, (), "", work.only), len(portion))
    if name in (account.default_qos, *qos_names(account.qos)):
        work.client.change(commands.set_access((name,), ((), ""), None, work.only))
    work.client.change(commands.remove_qos(name))
