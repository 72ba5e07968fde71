"""``sacctmgr remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator import printing
from waldur_site_agent_slurm.simulator.changing import ACCOUNT_KEYS, USER_KEYS, by_name
from waldur_site_agent_slurm.simulator.request import Answer, RefusedError, names, read_request
from waldur_site_agent_slurm.simulator.state import SimUser, user_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent_slurm.simulator.state import SimAccount, SimJob, SimState

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
        lines = [printing.account_of(state, a) for a in wanted]
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
        raise RefusedError(Answer(1, "", printing.active_jobs(state, known)))
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
        lines += [printing.member_of(state, *row) for row in rows]
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
    account.default_qos = ""
    for _, user in going:
        _bereft(state, user, going, drops_record=False)  # removing an account keeps records
    _cancel_unrecorded(state, {(account.name, user) for _, user in going})
