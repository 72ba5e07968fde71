"""``sacctmgr add account`` and ``add user``, and how each version reports them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from waldur_site_agent.backends.simulation import Answer, RefusedError
from waldur_site_agent_slurm.simulator.jobs import clock
from waldur_site_agent_slurm.simulator.limits import printed, read_limits
from waldur_site_agent_slurm.simulator.request import (
    Request,
    lowered,
    names,
    read_request,
)
from waldur_site_agent_slurm.simulator.state import (
    SimAccount,
    SimMembership,
    SimState,
    SimUser,
    user_names,
)

NOTHING_ADDED = " Nothing new added.\n"
_WIDTH = 10
_ACCOUNT_KEYS = (
    "name", "account", "parent", "description", "organization", "cluster", "grptresmins",
)  # fmt: skip
_USER_KEYS = (
    "name", "user", "account", "cluster", "defaultaccount", "maxsubmitjobs", "adminlevel",
    "partition", "qoslevel", "defaultqos", "fairshare",
)  # fmt: skip


def add_account(state: SimState, words: list[str]) -> Answer:
    """Make accounts below one parent; those that exist are passed over."""
    request = read_request(words, _ACCOUNT_KEYS)
    wanted = names(request.where.get("name", "") or request.where.get("account", ""))
    _check_cluster_of_accounts(state, request)
    if not wanted:
        raise RefusedError(_no_account_named(state))
    limits = read_limits(state, request.where.get("grptresmins", ""), adding=True)
    parent = (names(request.where.get("parent", "")) or ["root"])[0]
    missing = [name for name in wanted if not _is_associated(state, name)]
    _check_parent(state, parent, missing)
    if not missing:
        return Answer(1, _already_there(state, wanted) if state.is_24_11 else NOTHING_ADDED)
    report = _accounts_report(state, request.where, parent, wanted, missing, limits)
    if request.where.get("description") == "" and not state.is_24_11:
        return Answer(1, report, " Problem adding accounts: Unspecified error\n")
    for name in missing:
        account = state.accounts.setdefault(name, _new_account(request, name, parent))
        account.associated, account.parent = True, parent
        account.limits, account.counted_since = dict(limits), clock(state)
        account.fairshare, account.job_limits = "1", {}
    return Answer(0, report)


def add_user(state: SimState, words: list[str]) -> Answer:
    """Associate users with accounts; users that are new get a record and a default account."""
    request = read_request(words, _USER_KEYS)
    where = request.where
    users = user_names(state, where.get("name", "") or where.get("user", ""))
    default = (names(where.get("defaultaccount", "")) or [""])[0]
    accounts = names(where.get("account", ""))
    accounts += [default] if default and default not in accounts else []
    skipped = _accounts_passed_over(state, request, accounts)
    if not users:
        raise RefusedError(Answer(1, NOTHING_ADDED, " No blank names are allowed when adding.\n"))
    fresh = [name for name in users if name not in state.users]
    qos, default_qos = _own_qos(state, where)
    added = [
        (user, account, partition)
        for user in users
        for account in accounts
        if account not in skipped
        for partition in names(where.get("partition", "")) or [""]
        if partition not in _partitions(state.accounts[account], user)
    ]
    if not added:
        return Answer(1, _no_user_added(skipped.values()) if state.is_24_11 else NOTHING_ADDED)
    _check_default_qos(state, qos, default_qos, {account for _, account, _ in added})
    submit = where.get("maxsubmitjobs")
    limit = None if submit is None else int(submit)
    fairshare = where.get("fairshare", "")
    _associate(
        state,
        added,
        lambda partition: SimMembership(limit, [partition], qos, default_qos, fairshare=fairshare),
    )
    for user, account, _ in added:
        level = where.get("adminlevel", "None").capitalize()
        wanted = "" if default in skipped else default
        record = state.users.setdefault(user, SimUser(user, wanted or account, level))
        record.default_account = wanted or record.default_account or account
    return Answer(0, _users_report(state, where, default, fresh, added, skipped.values()))


def _associate(
    state: SimState,
    added: Sequence[tuple[str, str, str]],
    new_member: Callable[[str], SimMembership],
) -> None:
    joining: dict[str, dict[str, SimMembership]] = {}
    for user, name, partition in added:
        new = joining.setdefault(name, {})
        member = state.accounts[name].members.get(user) or new.get(user)
        if member is None:
            new[user] = new_member(partition)
        else:
            member.partitions.append(partition)
    for name, members in joining.items():
        account = state.accounts[name]
        account.members = members | account.members  # the newest come first


def _own_qos(state: SimState, where: Mapping[str, str]) -> tuple[list[str], str]:
    """The QOS list and default of new associations."""
    wanted, default = names(where.get("qoslevel", "")), where.get("defaultqos", "").lower()
    for name in wanted:
        if name not in state.qos:
            valid = ",".join(state.qos)
            said = f"sacctmgr: error: You gave a bad qos '{name}'. Valid QOS's are {valid}\n"
            times = 1 if state.is_24_11 else 2
            option = f" Unknown option: qoslevel={where['qoslevel']}\n"
            raise RefusedError(Answer(1, "", said * times + option))
    if default and default not in state.qos:
        said = f"You gave a bad default qos '{default}'.  Use 'list qos' to get complete list.\n"
        raise RefusedError(Answer(1, "", said))
    return sorted(wanted), default


def _check_default_qos(
    state: SimState, qos: Sequence[str], default: str, accounts: Collection[str]
) -> None:
    """24.11 makes no association without access to its default; 22.05 does."""
    lists = [qos or state.effective_qos(state.accounts[name]) for name in accounts]
    if state.is_24_11 and default and any(default not in names for names in lists):
        said = (
            " error: Problem adding user associations: This request would make it so some "
            "associations would not have access to their default qos.\n"
        )
        raise RefusedError(Answer(1, "", said))


def _partitions(account: SimAccount, user: str) -> list[str]:
    return account.members[user].partitions if user in account.members else []


def _check_cluster_of_accounts(state: SimState, request: Request) -> None:
    for name in names(request.where.get("cluster", "")):
        if name == state.cluster:
            continue
        said = _no_cluster(name)
        if state.is_24_11:
            said = (
                f" error: Cluster '{name}' has not been added yet, please contact your admin "
                "before adding accounts to it\n"
            )
        raise RefusedError(Answer(1, "", said))


def _no_cluster(name: str) -> str:
    advice = "Contact your admin to add it to accounting."
    return f" This cluster '{name}' doesn't exist.\n        {advice}\n"


def _check_parent(state: SimState, parent: str, missing: Sequence[str]) -> None:
    if _is_associated(state, parent):
        return
    if state.is_24_11:
        said = f" error: No parent account '{parent}' on cluster '{state.cluster}'\n"
        raise RefusedError(Answer(1, "", said))
    if missing:
        complaint = (
            f" Parent account '{parent}' doesn't exist on cluster {state.cluster}\n"
            "        Contact your admin to add this account.\n"
        )
        said = f"{complaint * len(missing)} No associations created.\n"
        raise RefusedError(Answer(1, "", said))


def _accounts_passed_over(
    state: SimState, request: Request, accounts: Sequence[str]
) -> Mapping[str, str]:
    """The accounts that are not there, with the line in which 24.11 says so; 22.05 refuses them.

    22.05 refuses the whole command here. The real one creates the other associations and exits
    with 1 all the same.
    """
    elsewhere = [n for n in names(request.where.get("cluster", "")) if n != state.cluster]
    if state.is_24_11:
        unknown = accounts if elsewhere else [n for n in accounts if not _is_associated(state, n)]
        cluster = elsewhere[0] if elsewhere else state.cluster
        return {name: f"No account {name} on cluster {cluster}, skipping.\n" for name in unknown}
    if elsewhere:
        raise RefusedError(Answer(1, "", _no_cluster(elsewhere[0])))
    if unknown := [name for name in accounts if not _is_associated(state, name)]:
        said = "".join(
            f" This account '{name}' doesn't exist.\n"
            "        Contact your admin to add this account.\n"
            for name in unknown
        )
        raise RefusedError(Answer(1, NOTHING_ADDED, said))
    return {}


def _no_user_added(skipped: Collection[str]) -> str:
    return (
        f"{''.join(skipped) or _NO_EFFECT}Nothing added.\n"
        "Make sure the accounts requested here have been added to the system/cluster. "
        "(sacctmgr add account...)\n"
    )


_NO_EFFECT = "Request didn't affect anything\n"


def _no_account_named(state: SimState) -> Answer:
    if state.is_24_11:
        return Answer(1, "", " error: Something was wrong with your query\n\n")
    return Answer(1, NOTHING_ADDED, " No blank names are allowed when adding.\n")


def _is_associated(state: SimState, name: str) -> bool:
    return name in state.accounts and state.accounts[name].associated


def _new_account(request: Request, name: str, parent: str) -> SimAccount:
    where = request.where
    default_organization = name if parent == "root" else parent
    return SimAccount(
        name=name,
        description=_stored_text(where.get("description", name)),
        organization=_stored_text(where.get("organization", default_organization)),
    )


def _stored_text(text: str) -> str:
    """Free text as the database keeps it."""
    stripped = text.removeprefix('"').removesuffix('"')
    return lowered(stripped.replace("'", "`").replace('"', "`"))


def _already_there(state: SimState, accounts: Sequence[str]) -> str:
    """How 24.11 begins the list of what it adds, too: the first line is indented."""
    lines = [f"Already existing account {name} on cluster {state.cluster}\n" for name in accounts]
    return " " + "".join(lines)


def _accounts_report(
    state: SimState,
    said: Mapping[str, str],
    parent: str,
    wanted: Sequence[str],
    missing: Sequence[str],
    limits: Mapping[str, int],
) -> str:
    lines: list[str] = []
    fresh = [name for name in missing if name not in state.accounts]
    if fresh:
        description = lowered(said["description"]) if "description" in said else "Account Name"
        organization = "Parent/Account Name"
        if "organization" in said:
            organization = lowered(said["organization"])
        lines += [" Adding Account(s)", *(f"  {name}" for name in fresh), " Settings"]
        lines += [f"  Description     = {description}", f"  Organization    = {organization}"]
    cluster = f"C = {state.cluster[:_WIDTH]:<10}"
    if state.is_24_11:
        lines.append(" Associations =")
        existing = {name for name in wanted if name not in missing}
        lines += [
            f"Already existing account {name} on cluster {state.cluster}"
            if name in existing
            else f"  {cluster} A = {name:<20}"
            for name in wanted
        ]
    else:
        lines.append(" Associations")
        lines += [f"  A = {name[:_WIDTH]:<10} {cluster}" for name in missing]
    if limits or "parent" in said:
        lines.append(" Settings")
    if limits:
        lines.append(f"  GrpTRESMins   = {printed(limits)}")
    if "parent" in said:
        lines.append(f"  Parent        = {parent}")
    return _text(lines)


def _users_report(
    state: SimState,
    said: Mapping[str, str],
    default: str,
    fresh: Sequence[str],
    added: Sequence[tuple[str, str, str]],
    skipped: Collection[str],
) -> str:
    lines: list[str] = []
    if fresh:
        settings = [f"  Default Account = {default}"] if default else []
        if "adminlevel" in said:
            settings.append(f"  Admin Level     = {said['adminlevel'].capitalize()}")
        lines += [" Adding User(s)", *(f"  {name}" for name in fresh)]
        if state.is_24_11:
            lines += [" Settings", *settings]
        elif settings:
            lines += [" Settings =", *settings]
    lines.append(" Associations =")
    cluster = f"C = {state.cluster[:_WIDTH]:<10}"
    for user, account, partition in added:
        of_partition = f" P = {partition:<10}" if partition else ""
        if state.is_24_11:
            lines.append(f"  {cluster} A = {account:<20} U = {user:<9}{of_partition}")
        else:
            lines.append(f"  U = {user:<9} A = {account:<10} {cluster}{of_partition}")
    lines += [line.rstrip("\n") for line in skipped]
    shown = {**said, "qoslevel": ",".join(sorted(names(said.get("qoslevel", ""))))}
    settings = [
        f"  {label:<13} = {shown[key]}" for key, label in _OWN_SETTINGS.items() if key in said
    ]
    if settings or not state.is_24_11:
        lines.append(" Non Default Settings")
    return _text([*lines, *settings])


_OWN_SETTINGS = {
    "fairshare": "Fairshare", "qoslevel": "QOS", "defaultqos": "DefQOS",
    "maxsubmitjobs": "MaxSubmitJobs",
}  # fmt: skip


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
