"""``sacctmgr add account`` and ``sacctmgr add user``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator import printing
from waldur_site_agent_slurm.simulator.limits import read_limits
from waldur_site_agent_slurm.simulator.request import (
    Answer,
    RefusedError,
    lowered,
    names,
    read_request,
)
from waldur_site_agent_slurm.simulator.state import (
    SimAccount,
    SimMembership,
    SimUser,
    user_names,
)

if TYPE_CHECKING:
    from waldur_site_agent_slurm.simulator.request import Request
    from waldur_site_agent_slurm.simulator.state import SimState

NOTHING_ADDED = " Nothing new added.\n"

_ACCOUNT_KEYS = ("name", "account", "parent", "description", "organization", "cluster")
_USER_KEYS = (
    "name", "user", "account", "cluster", "defaultaccount", "maxsubmitjobs", "adminlevel",
    "partition",
)  # fmt: skip


def add_account(state: SimState, words: list[str]) -> Answer:
    """Make accounts below one parent; those that exist are passed over."""
    request = read_request(words, (*_ACCOUNT_KEYS, "grptresmins"))
    wanted = names(request.where.get("name", "") or request.where.get("account", ""))
    check_cluster(state, request)
    if not wanted:
        raise RefusedError(Answer(1, NOTHING_ADDED, " No blank names are allowed when adding.\n"))
    limits = read_limits(state, request.where.get("grptresmins", ""), adding=True)
    parent = (names(request.where.get("parent", "")) or ["root"])[0]
    missing = [name for name in wanted if not _is_associated(state, name)]
    if missing and not _is_associated(state, parent):
        raise RefusedError(Answer(1, "", _no_parent(parent, state.cluster, len(missing))))
    if not missing:
        return Answer(1, NOTHING_ADDED)
    fresh = [name for name in missing if name not in state.accounts]
    report = printing.added_accounts(state, request.where, parent, missing, fresh, limits)
    if request.where.get("description") == "":
        return Answer(1, report, " Problem adding accounts: Unspecified error\n")
    for name in missing:
        account = state.accounts.setdefault(name, _new_account(request, name, parent))
        account.associated, account.parent = True, parent
        account.limits = dict(limits)
    return Answer(0, report)


def add_user(state: SimState, words: list[str]) -> Answer:
    """Associate users with accounts; users that are new get a record and a default account."""
    request = read_request(words, _USER_KEYS)
    where = request.where
    users = user_names(state, where.get("name", "") or where.get("user", ""))
    check_cluster(state, request)
    default = (names(where.get("defaultaccount", "")) or [""])[0]
    accounts = names(where.get("account", ""))
    accounts += [default] if default and default not in accounts else []
    if not users:
        raise RefusedError(Answer(1, NOTHING_ADDED, " No blank names are allowed when adding.\n"))
    unknown = [name for name in accounts if not _is_associated(state, name)]
    if unknown:
        text = "".join(_no_account(name) for name in unknown)
        raise RefusedError(Answer(1, NOTHING_ADDED, text))
    fresh = [name for name in users if name not in state.users]
    partition = where.get("partition", "").lower()
    added = [
        (user, account)
        for user in users
        for account in accounts
        if partition not in _partitions(state.accounts[account], user)
    ]
    if not added:
        return Answer(1, NOTHING_ADDED)
    submit = where.get("maxsubmitjobs")
    for user, account in added:
        limit = None if submit is None else int(submit)
        members = state.accounts[account].members
        if user in members:
            members[user].partitions.append(partition)
        else:
            members[user] = SimMembership(max_submit=limit, partitions=[partition])
        level = where.get("adminlevel", "None").capitalize()
        record = state.users.setdefault(user, SimUser(user, default or accounts[0], level))
        record.default_account = default or record.default_account or account
    return Answer(0, printing.added_users(state, where, default, fresh, added))


def _partitions(account: SimAccount, user: str) -> list[str]:
    return account.members[user].partitions if user in account.members else []


def check_cluster(state: SimState, request: Request) -> None:
    """Refuse a cluster that is not this one."""
    for name in names(request.where.get("cluster", "")):
        if name != state.cluster:
            text = (
                f" This cluster '{name}' doesn't exist.\n"
                "        Contact your admin to add it to accounting.\n"
            )
            raise RefusedError(Answer(1, "", text))


def _is_associated(state: SimState, name: str) -> bool:
    return name in state.accounts and state.accounts[name].associated


def _new_account(request: Request, name: str, parent: str) -> SimAccount:
    where = request.where
    default_organization = name if parent == "root" else parent
    return SimAccount(
        name=name,
        description=stored_text(where.get("description", name)),
        organization=stored_text(where.get("organization", default_organization)),
    )


def stored_text(text: str) -> str:
    """Free text as the database keeps it."""
    stripped = text.removeprefix('"').removesuffix('"')
    return lowered(stripped.replace("'", "`").replace('"', "`"))


def _no_parent(parent: str, cluster: str, times: int) -> str:
    complaint = (
        f" Parent account '{parent}' doesn't exist on cluster {cluster}\n"
        "        Contact your admin to add this account.\n"
    )
    return f"{complaint * times} No associations created.\n"


def _no_account(name: str) -> str:
    return (
        f" This account '{name}' doesn't exist.\n        Contact your admin to add this account.\n"
    )
