"""``sacctmgr modify``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator import limits, printing
from waldur_site_agent_slurm.simulator.request import (
    Answer,
    RefusedError,
    names,
    read_request,
    unknown_option,
)
from waldur_site_agent_slurm.simulator.state import user_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from waldur_site_agent_slurm.simulator.request import (
        Request,
    )
    from waldur_site_agent_slurm.simulator.state import SimAccount, SimMembership, SimState

NOTHING_MODIFIED = Answer(1, " Nothing modified\n")
ACCOUNT_KEYS = ("name", "account", "cluster", "grptresmins", "qos", "defaultqos", "parent")
USER_KEYS = (
    "name", "user", "account", "cluster", "defaultaccount", "adminlevel", "grptresmins", "qos",
    "defaultqos", "partition",
)  # fmt: skip
_CLEAR = "-1"


@dataclass
class _Change:
    """What ``set`` asks for; ``None`` is not named in it."""

    limits: dict[str, int]
    qos: list[str] | None
    default_qos: str | None

    def of_qos(self, qos: list[str], default: str) -> tuple[list[str], str]:
        """The QOS list and default that an association would have."""
        wanted = default if self.default_qos is None else self.default_qos
        return (qos if self.qos is None else self.qos), wanted


def modify_account(state: SimState, words: list[str]) -> Answer:
    """Change limits or QOS of accounts; without names, of every account."""
    request = read_request(words, ACCOUNT_KEYS)
    change = _change(state, request)
    wanted = _accounts_named(state, request)
    if not wanted:
        return NOTHING_MODIFIED
    _refuse_lost_defaults(state, _after_accounts(state, wanted, change))
    lines = [" Modified account associations..."]
    for account in wanted:
        limits.merge(account.limits, change.limits)
        account.qos, account.default_qos = change.of_qos(account.qos, account.default_qos)
        lines.append(printing.account_of(state, account))
        if change.qos is not None or change.default_qos is not None:
            lines += _reached(state, account, change)
    return Answer(0, "".join(f"{line}\n" for line in lines))


def modify_user(state: SimState, words: list[str]) -> Answer:
    """Change users, or with ``account`` or with limits and QOS their associations."""
    request = read_request(words, USER_KEYS)
    named = user_names(state, request.where.get("name", "") or request.where.get("user", ""))
    if request.set.keys() & {"grptresmins", "qos", "defaultqos"}:
        return _modify_members(state, request, named)
    users = [state.users[name] for name in named if name in state.users]
    if not users:
        return NOTHING_MODIFIED
    default = (names(request.set.get("defaultaccount", "")) or [""])[0]
    strangers = [u.name for u in users if default and not _is_member(state, default, u.name)]
    if strangers:
        lines = [
            (
                " Can't modify because these users aren't associated with new default account "
                f"'{default}'..."
            ),
            *(f"  U = {name} C = {state.cluster}" for name in strangers),
        ]
        return Answer(1, "".join(f"{line}\n" for line in lines))
    for user in users:
        user.default_account = default or user.default_account
        user.admin_level = request.set.get("adminlevel", user.admin_level).capitalize()
    return Answer(0, " Modified users...\n" + "".join(f"  {user.name}\n" for user in users))


def by_name(accounts: Iterable[SimAccount]) -> list[SimAccount]:
    """The accounts in the order in which sacctmgr treats them."""
    return sorted(accounts, key=lambda account: account.name)


def _modify_members(state: SimState, request: Request, users: Sequence[str]) -> Answer:
    change = _change(state, request)
    only = names(request.where.get("account", "")) or list(state.accounts)
    accounts = by_name(state.accounts[name] for name in only if name in state.accounts)
    chosen = [
        (account, user, account.members[user])
        for account in accounts
        for user in sorted(account.members)
        if not users or user in users
    ]
    if not chosen:
        return NOTHING_MODIFIED
    _refuse_lost_defaults(
        state,
        (
            (account, user, *_inheriting(*change.of_qos(m.qos, m.default_qos), state, account))
            for account, user, m in chosen
        ),
    )
    lines = [" Modified user associations..."]
    for account, user, member in chosen:
        limits.merge(member.limits, change.limits)
        member.qos, member.default_qos = change.of_qos(member.qos, member.default_qos)
        lines += [
            printing.member_of(state, account.name, user, partition)
            for partition in member.associations()
        ]
    return Answer(0, "".join(f"{line}\n" for line in lines))


def _after_accounts(
    state: SimState, accounts: Sequence[SimAccount], change: _Change
) -> Iterator[tuple[SimAccount, str, list[str], str]]:
    """What the accounts and their users would have."""
    for account in accounts:
        own, default = change.of_qos(account.qos, account.default_qos)
        qos = own or state.inherited_qos(account)
        yield account, "", qos, default
        for user, member in sorted(account.members.items()):
            # a default of one's own is held against the account's new list all the same
            checked_against = qos if member.default_qos and change.qos else member.qos or qos
            yield account, user, checked_against, member.default_qos or default


def _inheriting(
    qos: list[str], default: str, state: SimState, account: SimAccount
) -> tuple[list[str], str]:
    return qos or state.effective_qos(account), default or account.default_qos


def _refuse_lost_defaults(
    state: SimState, after: Iterable[tuple[SimAccount, str, list[str], str]]
) -> None:
    """Refuse, with exit code 0, when anybody would have a default that is not in the list."""
    lost = [row for row in after if row[3] and row[3] not in row[2]]
    if not lost:
        return
    lines = [
        " These associations don't have access to their default qos.",
        " Please give them access before they the default can be set to this.",
    ]
    for account, user, _, default in lost:
        where = f"C = {state.cluster:<10} A = {account.name:<10}"
        lines.append(f"  DefQOS = {default:<10} {where}" + (f" U = {user:<9}" if user else ""))
    raise RefusedError(Answer(0, "", "".join(f"{line}\n" for line in lines)))


def _reached(state: SimState, account: SimAccount, change: _Change) -> Iterator[str]:
    """The report of the users whom an account's new QOS reaches."""
    for user, member in sorted(account.members.items()):
        if not (_is_own(member) and change.default_qos is None):
            for partition in member.associations():
                yield printing.member_of(state, account.name, user, partition)


def _is_own(member: SimMembership) -> bool:
    return bool(member.qos)


def _change(state: SimState, request: Request) -> _Change:
    wanted = request.set
    found = limits.read_limits(state, wanted["grptresmins"]) if "grptresmins" in wanted else {}
    return _Change(found, _qos(state, request), _default_qos(state, request))


def _qos(state: SimState, request: Request) -> list[str] | None:
    if "qos" not in request.set:
        return None
    wanted = names(request.set["qos"])
    for name in wanted:
        if name not in state.qos:
            valid = ",".join(state.qos)
            said = f"sacctmgr: error: You gave a bad qos '{name}'. Valid QOS's are {valid}\n"
            refusal = unknown_option(f"qos={request.set['qos']}")
            raise RefusedError(Answer(1, "", said + refusal.stderr))
    return sorted(wanted)


def _default_qos(state: SimState, request: Request) -> str | None:
    if "defaultqos" not in request.set:
        return None
    name = request.set["defaultqos"].lower()
    if name == _CLEAR:
        return ""
    if name not in state.qos:
        said = f"You gave a bad default qos '{request.set['defaultqos']}'."
        raise RefusedError(Answer(1, "", f"{said}  Use 'list qos' to get complete list.\n"))
    return name


def _accounts_named(state: SimState, request: Request) -> list[SimAccount]:
    named = names(request.where.get("name", "") or request.where.get("account", ""))
    chosen = named or list(state.accounts)
    return by_name(
        state.accounts[n] for n in chosen if n in state.accounts and state.accounts[n].associated
    )


def _is_member(state: SimState, account: str, user: str) -> bool:
    return account in state.accounts and user in state.accounts[account].members
