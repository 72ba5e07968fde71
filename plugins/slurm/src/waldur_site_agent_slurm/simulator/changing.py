"""``sacctmgr modify`` and ``remove``, and the coordinators of accounts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from waldur_site_agent.backends.simulation import Answer, RefusedError
from waldur_site_agent_slurm.simulator import counting, limits, showing
from waldur_site_agent_slurm.simulator.request import (
    Request,
    names,
    read_request,
    unknown_option,
)
from waldur_site_agent_slurm.simulator.state import (
    SimAccount,
    SimJob,
    SimState,
    SimUser,
    user_names,
)

_NO_USERS_MODIFIED = Answer(1, " Nothing modified\n")
ACCOUNT_KEYS = (
    "name",
    "account",
    "cluster",
    "grptresmins",
    "qos",
    "defaultqos",
    "parent",
    "grpsubmitjobs",
    "fairshare",
    "maxtresmins",
    "rawusage",
)
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
    if "rawusage" in request.set:
        return counting.reset_accounts(state, request)
    change = _change(state, request)
    wanted = _accounts_named(state, request)
    if not wanted:
        return _nothing_modified(state)
    share = request.set.get("fairshare")
    if share is not None and share != "parent" and not share.isdecimal():
        raise RefusedError(unknown_option(f"Fairshare={share}"))
    job_limits = (
        limits.read_limits(state, request.set.get("maxtresmins", ""), adding=False)
        if ("maxtresmins" in request.set)
        else {}
    )
    _refuse_lost_defaults(state, _after_accounts(state, wanted, change))
    lines = [" Modified account associations..."]
    if "parent" in request.set:
        return _move_accounts(state, wanted, (names(request.set["parent"]) or [""])[0])
    for account in wanted:
        limits.merge(account.limits, change.limits)
        limits.merge(account.job_limits, job_limits)
        account.fairshare = share or account.fairshare
        account.qos, account.default_qos = change.of_qos(account.qos, account.default_qos)
        if "grpsubmitjobs" in request.set:
            account.submit_limit = _submit_limit(request.set["grpsubmitjobs"])
        lines.append(showing.account_of(state, account))
        if change.qos is not None or change.default_qos is not None:
            lines += _reached(state, account, change)
    return Answer(0, "".join(f"{line}\n" for line in lines))


def _move_accounts(state: SimState, wanted: Sequence[SimAccount], parent: str) -> Answer:
    """Put accounts below another; those that are there already are passed over."""
    above = state.accounts.get(parent)
    is_there = above is not None and above.associated
    if not is_there and not state.is_24_11:
        return Answer(1, "", f" Parent Account {parent} doesn't exist.\n")
    lines = [" Modified account associations..."]
    for account in wanted:
        if parent in (account.name, account.parent):
            continue
        lines.append(showing.account_of(state, account))
        if not is_there:  # 24.11 says so and changes nothing in its database
            continue
        if state.is_24_11:
            lines += _reported_below(state, account)
        if state.is_below(parent, account.name):
            state.accounts[parent].parent = account.parent
        account.parent = parent
    return Answer(0, _text(lines)) if len(lines) > 1 else _nothing_modified(state)


def _reported_below(state: SimState, account: SimAccount) -> Iterator[str]:
    """What 24.11 reports besides; users two levels below keep the old lineage."""
    below = by_name(a for a in state.accounts.values() if a.associated and a.parent == account.name)
    listed = [f"  C = {state.cluster:<10} A = {child.name:<20}" for child in below]
    yield from listed
    yield from (showing.member_of(state, account.name, user) for user in sorted(account.members))
    yield from listed
    for child in below:
        for member in child.members.values():
            member.lost_lineage = True


def modify_user(state: SimState, words: list[str]) -> Answer:
    """Change users, or with ``account`` or with limits and QOS their associations."""
    request = read_request(words, USER_KEYS)
    named = user_names(state, request.where.get("name", "") or request.where.get("user", ""))
    if request.set.keys() & {"grptresmins", "qos", "defaultqos"}:
        return _modify_members(state, request, named)
    users = [state.users[name] for name in named if name in state.users]
    if not users:
        return _NO_USERS_MODIFIED
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


def _nothing_modified(state: SimState) -> Answer:
    """The answer when no association was chosen."""
    if not state.is_24_11:
        return _NO_USERS_MODIFIED
    said = (
        "sacctmgr: error: Request didn't affect anything\n"
        " Error with request: Data has not changed since time specified\n"
    )
    return Answer(1, "", said)


def by_name(accounts: Iterable[SimAccount]) -> list[SimAccount]:
    """The accounts in the order in which sacctmgr treats them."""
    return sorted(accounts, key=lambda account: account.name)


def _modify_members(state: SimState, request: Request, users: Sequence[str]) -> Answer:
    change = _change(state, request)
    only = names(request.where.get("account", "")) or list(state.accounts)
    accounts = by_name(state.accounts[name] for name in only if name in state.accounts)
    wanted = set(users)
    chosen = [
        (account, user, account.members[user])
        for account in accounts
        for user in sorted(account.members)
        if not users or user in wanted
    ]
    if not chosen:
        return _nothing_modified(state)
    _refuse_lost_defaults(
        state,
        (
            _inheriting(*change.of_qos(m.qos, m.default_qos), state, account, user)
            for account, user, m in chosen
        ),
    )
    lines = [" Modified user associations..."]
    for account, user, member in chosen:
        limits.merge(member.limits, change.limits)
        member.qos, member.default_qos = change.of_qos(member.qos, member.default_qos)
        lines += [
            showing.member_of(state, account.name, user, partition)
            for partition in member.associations()
        ]
    return Answer(0, "".join(f"{line}\n" for line in lines))


@dataclass
class _Outcome:
    """What an association would have."""

    account: SimAccount
    user: str
    qos: list[str]
    default_qos: str
    shown: str
    """The default that a refusal names."""


def _after_accounts(
    state: SimState, accounts: Sequence[SimAccount], change: _Change
) -> Iterator[_Outcome]:
    """What the accounts and their users would have."""
    for account in accounts:
        own, default = change.of_qos(account.qos, account.default_qos)
        qos = own or state.inherited_qos(account)
        yield _Outcome(account, "", qos, default, default)
        for user, member in sorted(account.members.items()):
            shown = member.default_qos or default
            # 22.05 asks for access to the account's new default also where a user has another
            asked = shown if state.is_24_11 else change.default_qos or shown
            yield _Outcome(account, user, member.qos or qos, asked, shown)


def _inheriting(
    qos: list[str], default: str, state: SimState, account: SimAccount, user: str
) -> _Outcome:
    wanted = default or account.default_qos
    return _Outcome(account, user, qos or state.effective_qos(account), wanted, wanted)


def _refuse_lost_defaults(state: SimState, after: Iterable[_Outcome]) -> None:
    """Refuse when anybody would have a default that is not in the list; 22.05 exits with 0."""
    lost = [row for row in after if row.default_qos and row.default_qos not in row.qos]
    if not lost:
        return
    lines = [
        " These associations don't have access to their default qos.",
        " Please give them access before they the default can be set to this.",
    ]
    for row in lost:
        where = f"C = {state.cluster:<10} A = {row.account.name:<10}"
        of_user = f" U = {row.user:<9}" if row.user else ""
        lines.append(f"  DefQOS = {row.shown:<10} {where}{of_user}")
    if state.is_24_11:
        reason = (
            "This request would make it so some associations would not have access to their "
            "default qos."
        )
        lines = ["sacctmgr: error: ", *lines, "", f" Error with request: {reason}"]
    raise RefusedError(Answer(1 if state.is_24_11 else 0, "", _text(lines)))


def _reached(state: SimState, account: SimAccount, change: _Change) -> Iterator[str]:
    """The report of the users whom an account's new QOS reaches."""
    for user, member in sorted(account.members.items()):
        new_list = change.qos is not None and not member.qos
        new_default = change.default_qos is not None and not member.default_qos
        if new_list or new_default:
            for partition in member.associations():
                yield showing.member_of(state, account.name, user, partition)


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


def _submit_limit(text: str) -> int | None:
    if not text.lstrip("-").isdigit():
        raise RefusedError(unknown_option(f"GrpSubmitJobs={text}"))
    return int(text) if int(text) >= 0 else None


def _accounts_named(state: SimState, request: Request) -> list[SimAccount]:
    named = names(request.where.get("name", "") or request.where.get("account", ""))
    chosen = named or list(state.accounts)
    return by_name(
        state.accounts[n] for n in chosen if n in state.accounts and state.accounts[n].associated
    )


def _is_member(state: SimState, account: str, user: str) -> bool:
    return account in state.accounts and user in state.accounts[account].members


_NOTHING_DELETED = Answer(1, " Nothing deleted\n")
_ADVICE_FOR_USERS = (
    "  You must change the default account of these users or remove the users completely from the "
    "affected clusters to allow these changes.\n"
)
_ADVICE_FOR_ACCOUNTS = (
    "  Please either remove the accounts listed above from list and resubmit,\n"
    "  or change these users' default accounts to remove the account(s).\n"
)


def remove_user(state: SimState, words: list[str]) -> Answer:
    """End associations of users; those with none left are deleted. All or nothing."""
    request = read_request(words, USER_KEYS)
    users = {*user_names(state, request.where.get("name", "") or request.where.get("user", ""))}
    only = names(request.where.get("account", ""))
    accounts = by_name(state.accounts[a] for a in only or state.accounts if a in state.accounts)
    going = [(a, u) for a in accounts for u in sorted(a.members) if not users or u in users]
    if not going:
        return _NOTHING_DELETED
    gone = {(account.name, user) for account, user in going}
    _refuse_active(state, [j for j in state.jobs.values() if (j.account, j.user) in gone])
    if only:
        _refuse_losing_default(state, going, _ADVICE_FOR_USERS)
    rows = [
        (account.name, user, partition)
        for account, user in going
        for partition in account.members[user].associations()
    ]
    for account, user in going:
        del account.members[user]
    _cancel_unrecorded(state, gone)
    return Answer(0, _removed_users(state, going, rows, whole=not only))


def remove_account(state: SimState, words: list[str]) -> Answer:
    """Remove accounts and every association of and below them. All or nothing."""
    request = read_request(words, ACCOUNT_KEYS)
    named = names(request.where.get("name", "") or request.where.get("account", ""))
    of_cluster = "cluster" in request.where
    wanted = by_name(
        state.accounts[name]
        for name in named
        if name in state.accounts and (state.accounts[name].associated or not of_cluster)
    )
    if not wanted:
        return _NOTHING_DELETED
    below = {a.name: a for account in wanted for a in state.below(account.name)}
    _refuse_active(state, [j for j in state.jobs.values() if j.account in below])
    lost = [(account, user) for account in below.values() for user in account.members]
    _refuse_losing_default(state, lost, _ADVICE_FOR_ACCOUNTS)
    parents = {account.name: account for account in wanted}
    for account in below.values():
        _disband(state, account)
    if of_cluster:
        lines = [showing.account_of(state, a) for a in wanted]
        heading = " Deleting account associations...\n"
    else:
        lines = [f"  {name}" for name in parents]
        heading = " Deleting accounts...\n"
        for name in parents:
            del state.accounts[name]
    for account in below.values():
        account.parent = ""
    return Answer(0, heading + "".join(f"{line}\n" for line in lines))


def _refuse_active(state: SimState, jobs: Sequence[SimJob]) -> None:
    # 24.11 hears of every job at once
    known = [job for job in jobs if job.recorded or state.is_24_11]
    if known:
        raise RefusedError(Answer(1, "", showing.active_jobs(state, known)))
    if state.late_ends > 0:
        state.late_ends -= 1
        said = " Error with request: Job(s) active, cancel job(s) before remove\n"
        raise RefusedError(Answer(1, "", said))


def _refuse_losing_default(
    state: SimState, going: Sequence[tuple[SimAccount, str]], advice: str
) -> None:
    """Refuse where a default account goes that has to stay."""
    late = _defaults_with_others_left if state.is_24_11 else _defaults_after_others
    lost = late(state, going)
    if lost:
        lines = [" Error with request: You can not remove the default account of a user"]
        lines += [
            f"  C = {state.cluster:<15} A = {account.name:<10} U = {user:<9}"
            for account, user in lost
        ]
        said = _text(lines)
        raise RefusedError(Answer(1, "", f"{said}{advice}  Changes Discarded\n"))


def _defaults_with_others_left(
    state: SimState, going: Sequence[tuple[SimAccount, str]]
) -> list[tuple[SimAccount, str]]:
    """24.11: those who would keep associations, but not that of the default account."""
    gone = {(account.name, user) for account, user in going}
    return [
        (account, user)
        for account, user in going
        if state.users[user].default_account == account.name
        and any((other.name, user) not in gone for other in state.accounts_of(user))
    ]


def _defaults_after_others(
    state: SimState, going: Sequence[tuple[SimAccount, str]]
) -> list[tuple[SimAccount, str]]:
    """22.05: the default accounts that come after an association that is none."""
    ordered = sorted(
        (
            (account, user, partition)
            for account, user in going
            for partition in account.members[user].associations()
        ),
        key=lambda row: (row[0].name, not row[2], row[1]),
    )
    is_default = [_is_default(state, *row) for row in ordered]
    if False not in is_default:
        return []
    first_other = is_default.index(False)
    return [
        row[:2]
        for row, default in list(zip(ordered, is_default, strict=True))[first_other:]
        if default
    ]


def _is_default(state: SimState, account: SimAccount, user: str, partition: str) -> bool:
    is_default_account = state.users[user].default_account == account.name
    return is_default_account and account.members[user].default_association() == partition


def _cancel_unrecorded(state: SimState, gone: set[tuple[str, str]]) -> None:
    for job in list(state.jobs.values()):
        if (job.account, job.user) in gone:
            del state.jobs[job.id]


def _removed_users(
    state: SimState,
    going: Sequence[tuple[SimAccount, str]],
    rows: Sequence[tuple[str, str, str]],
    *,
    whole: bool,
) -> str:
    lines = [] if whole else [" Deleting user associations..."]
    if not whole:
        lines += [showing.member_of(state, *row) for row in rows]
    lost = [user for user, left in _accounts_left(going) if _bereft(state, user, left)]
    if lost:
        lines.append(" Deleting users..." if whole else " Deleting users (No Associations)...")
        lines += [f"  {user}" for user in lost]
    return "".join(f"{line}\n" for line in lines)


def _accounts_left(going: Sequence[tuple[SimAccount, str]]) -> list[tuple[str, set[str]]]:
    """The users by name, with the accounts that they leave."""
    left: dict[str, set[str]] = {}
    for account, user in going:
        left.setdefault(user, set()).add(account.name)
    return sorted(left.items())


def _bereft(state: SimState, user: str, left: set[str], *, drops_record: bool = True) -> bool:
    """Drop the record of a user without associations, or the default that is no more."""
    record = state.users.get(user, SimUser(user))
    if not state.accounts_of(user) and drops_record:
        state.forget_user(user)
        return True
    if record.default_account in left:
        record.default_account = ""
    return False


def _disband(state: SimState, account: SimAccount) -> None:
    going = [(account, user) for user in account.members]
    account.members, account.coordinators = {}, []
    account.associated, account.limits, account.qos = False, {}, []
    account.default_qos, account.submit_limit = "", None
    for _, user in going:
        _bereft(state, user, {account.name}, drops_record=False)  # the records stay
    _cancel_unrecorded(state, {(account.name, user) for _, user in going})


_KEYS = ("account", "accounts", "names", "name")


def add_coordinator(state: SimState, words: list[str]) -> Answer:
    """Let users change the members of accounts and of all below them."""
    accounts, users = _named(state, words)
    for account in accounts:
        account.coordinators += [user for user in users if user not in account.coordinators]
    said = [
        " Adding Coordinator User(s)",
        *(f"  {user}" for user in users),
        " To Account(s) and all sub-accounts",
        *(f"  {account.name}" for account in accounts),
    ]
    return Answer(0, _text(said))


def remove_coordinator(state: SimState, words: list[str]) -> Answer:
    """Take the right where it was given; what comes from an account above stays."""
    accounts, users = _named(state, words)
    said = [
        " Removing Coordinators with user name",
        *(f"  {user}" for user in users),
        " From Account(s)",
        *(f"  {account.name}" for account in accounts),
    ]
    gone = [(user, a) for a in accounts for user in users if user in a.coordinators]
    if not gone:
        return Answer(1, _text([*said, " Nothing removed"]))
    said.append(" Removed Coordinators (sub accounts not listed)...")
    for user, account in gone:
        account.coordinators.remove(user)
        said.append(f"  U = {user:<9} A = {account.name:<10}")
    return Answer(0, _text(said))


def _named(state: SimState, words: list[str]) -> tuple[list[SimAccount], list[str]]:
    where = read_request(words, _KEYS).where
    accounts = names(where.get("account", "") or where.get("accounts", ""))
    users = user_names(state, where.get("names", "") or where.get("name", ""))
    for user in users:
        if user not in state.users:
            _refuse("user", user)
    for account in accounts:
        if account not in state.accounts:
            _refuse("account", account)
    return [state.accounts[name] for name in accounts], users


def _refuse(kind: str, name: str) -> None:
    raise RefusedError(Answer(1, "", f" You specified a non-existent {kind} '{name}'.\n"))


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
