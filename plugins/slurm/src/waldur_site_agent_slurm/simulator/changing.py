"""``sacctmgr modify``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from waldur_site_agent.backends.simulation import Answer, RefusedError
from waldur_site_agent_slurm.simulator import limits, showing
from waldur_site_agent_slurm.simulator.limits import read_limits
from waldur_site_agent_slurm.simulator.request import (
    Request,
    lowered,
    names,
    read_request,
    unknown_option,
)
from waldur_site_agent_slurm.simulator.state import (
    SimAccount,
    SimJob,
    SimMembership,
    SimState,
    SimUser,
    user_names,
)

NOTHING_MODIFIED = Answer(1, " Nothing modified\n")
ACCOUNT_KEYS = (
    "name",
    "account",
    "cluster",
    "grptresmins",
    "qos",
    "defaultqos",
    "parent",
    "grpsubmitjobs",
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
    change = _change(state, request)
    wanted = _accounts_named(state, request)
    if not wanted:
        return NOTHING_MODIFIED
    _refuse_lost_defaults(state, _after_accounts(state, wanted, change))
    lines = [" Modified account associations..."]
    for account in wanted:
        limits.merge(account.limits, change.limits)
        account.qos, account.default_qos = change.of_qos(account.qos, account.default_qos)
        if "grpsubmitjobs" in request.set:
            account.submit_limit = _submit_limit(request.set["grpsubmitjobs"])
        lines.append(showing.account_of(state, account))
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
            showing.member_of(state, account.name, user, partition)
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
                yield showing.member_of(state, account.name, user, partition)


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


NOTHING_ADDED = " Nothing new added.\n"

_ACCOUNT_KEYS = ("name", "account", "parent", "description", "organization", "cluster")
_USER_KEYS = (
    "name", "user", "account", "cluster", "defaultaccount", "maxsubmitjobs", "adminlevel",
    "partition", "qoslevel", "defaultqos",
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
    report = showing.added_accounts(state, request.where, parent, missing, fresh, limits)
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
    qos, default_qos = _own_qos(state, where)
    added = [
        (user, account, partition)
        for user in users
        for account in accounts
        for partition in names(where.get("partition", "")) or [""]
        if partition not in _partitions(state.accounts[account], user)
    ]
    if not added:
        return Answer(1, NOTHING_ADDED)
    submit = where.get("maxsubmitjobs")
    for user, account, partition in added:
        limit = None if submit is None else int(submit)
        members = state.accounts[account].members
        if user in members:
            members[user].partitions.append(partition)
        else:
            members[user] = SimMembership(limit, [partition], qos, default_qos)
        level = where.get("adminlevel", "None").capitalize()
        record = state.users.setdefault(user, SimUser(user, default or accounts[0], level))
        record.default_account = default or record.default_account or account
    return Answer(0, showing.added_users(state, where, default, fresh, added))


def _own_qos(state: SimState, where: dict[str, str]) -> tuple[list[str], str]:
    """The QOS list and default of new associations."""
    wanted = names(where.get("qoslevel", ""))
    for name in (*wanted, *names(where.get("defaultqos", ""))):
        if name not in state.qos:
            valid = ",".join(state.qos)
            said = f"sacctmgr: error: You gave a bad qos '{name}'. Valid QOS's are {valid}\n"
            raise RefusedError(Answer(1, "", said + unknown_option(f"qoslevel={name}").stderr))
    return sorted(wanted), where.get("defaultqos", "").lower()


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
    users = user_names(state, request.where.get("name", "") or request.where.get("user", ""))
    only = names(request.where.get("account", ""))
    accounts = by_name(state.accounts[a] for a in only or state.accounts if a in state.accounts)
    going = [(a, u) for a in accounts for u in sorted(a.members) if not users or u in users]
    if not going:
        return _NOTHING_DELETED
    _refuse_active(state, [j for j in state.jobs.values() if _uses(j, going)])
    if only:
        _refuse_losing_default(state, going, _ADVICE_FOR_USERS)
    rows = [
        (account.name, user, partition)
        for account, user in going
        for partition in account.members[user].associations()
    ]
    for account, user in going:
        del account.members[user]
    _cancel_unrecorded(state, {(account.name, user) for account, user in going})
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


def _uses(job: SimJob, going: Sequence[tuple[SimAccount, str]]) -> bool:
    return any(job.account == account.name and job.user == user for account, user in going)


def _refuse_active(state: SimState, jobs: Sequence[SimJob]) -> None:
    known = [job for job in jobs if job.recorded]
    if known:
        raise RefusedError(Answer(1, "", showing.active_jobs(state, known)))
    if state.late_ends > 0:
        state.late_ends -= 1
        said = " Error with request: Job(s) active, cancel job(s) before remove\n"
        raise RefusedError(Answer(1, "", said))


def _refuse_losing_default(
    state: SimState, going: Sequence[tuple[SimAccount, str]], advice: str
) -> None:
    """Refuse when a default account comes after an association that is none: so 22.05 checks."""
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
        return
    late = [
        row[:2]
        for row, default in list(zip(ordered, is_default, strict=True))[is_default.index(False) :]
        if default
    ]
    if late:
        lines = [" Error with request: You can not remove the default account of a user"]
        lines += [
            f"  C = {state.cluster:<15} A = {account.name:<10} U = {user:<9}"
            for account, user in late
        ]
        said = "".join(f"{line}\n" for line in lines)
        raise RefusedError(Answer(1, "", f"{said}{advice}  Changes Discarded\n"))


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
    lost = [u for u in sorted({user for _, user in going}) if _bereft(state, u, going)]
    if lost:
        lines.append(" Deleting users..." if whole else " Deleting users (No Associations)...")
        lines += [f"  {user}" for user in lost]
    return "".join(f"{line}\n" for line in lines)


def _bereft(
    state: SimState,
    user: str,
    going: Sequence[tuple[SimAccount, str]],
    *,
    drops_record: bool = True,
) -> bool:
    """Drop the record of a user without associations, or the default that is no more."""
    record = state.users.get(user, SimUser(user))
    if not state.accounts_of(user) and drops_record:
        state.forget_user(user)
        return True
    if record.default_account in {account.name for account, other in going if other == user}:
        record.default_account = ""
    return False


def _disband(state: SimState, account: SimAccount) -> None:
    going = [(account, user) for user in account.members]
    account.members, account.coordinators = {}, []
    account.associated, account.limits, account.qos = False, {}, []
    account.default_qos, account.submit_limit = "", None
    for _, user in going:
        _bereft(state, user, going, drops_record=False)  # removing an account keeps records
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
