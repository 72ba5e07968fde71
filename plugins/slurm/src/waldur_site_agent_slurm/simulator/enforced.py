"""``scontrol show assoc_mgr``: what slurmctld enforces, with what is used."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from waldur_site_agent.backends.simulation import Answer
from waldur_site_agent_slurm.simulator import jobs
from waldur_site_agent_slurm.simulator.jobs import counted
from waldur_site_agent_slurm.simulator.request import names
from waldur_site_agent_slurm.simulator.state import SimAccount, SimState

_FIRST_UID = 1000


def scontrol(state: SimState, words: Sequence[str]) -> Answer:
    """Answer ``scontrol show``."""
    return assoc_mgr(state, words) if "assoc_mgr" in words else jobs.scontrol(state, words)


def assoc_mgr(state: SimState, words: Sequence[str]) -> Answer:
    """Answer for the accounts, users and QOS that are named; for all of a kind without a name."""
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    accounts = names(options["accounts"]) if "accounts" in options else [*state.accounts]
    users = set(options["users"].split(",")) if "users" in options else {*state.users}
    chosen = [state.accounts[name] for name in accounts if name in state.accounts]
    lines = ["Current Association Manager state", "", "User Records", ""]
    lines += (_user(state, name) for name in state.users if name in users)
    lines += ["", "Association Records", ""]
    lines += (line for account in chosen for line in _associations(state, account, users))
    lines += ["", "QOS Records", ""]
    wanted = names(options["qos"]) if "qos" in options else state.qos
    lines += (line for name in state.qos if name in wanted for line in _qos(state, name))
    return Answer(0, "".join(f"{line}\n" for line in lines))


def _user(state: SimState, name: str) -> str:
    user = state.users[name]
    return (
        f"UserName={name}({_uid(state, name)}) DefAccount={user.default_account or '(null)'} "
        f"DefWckey=(null) AdminLevel={user.admin_level}"
    )


def _uid(state: SimState, name: str) -> int:
    return 0 if name == "root" else _FIRST_UID + [*state.users].index(name)


def _associations(state: SimState, account: SimAccount, users: Collection[str]) -> Iterator[str]:
    if not account.associated:
        return
    below = {each.name for each in state.below(account.name)}
    yield f"ClusterName={state.cluster} Account={account.name} UserName= Partition= Priority=0 ID=1"
    submit = "N" if account.submit_limit is None else account.submit_limit
    queued = sum(1 for job in state.jobs.values() if job.account in below)
    yield f"    GrpJobs=N({queued}) GrpSubmitJobs={submit}({queued})"
    since = account.counted_since
    yield f"    GrpTRESMins={_minutes(state, account.limits, counted(state, below, since))}"
    for user, membership in account.members.items():
        if user not in users:
            continue
        for partition in membership.associations():
            yield (
                f"ClusterName={state.cluster} Account={account.name} UserName={user}"
                f"({_uid(state, user)}) Partition={partition} Priority=0 ID=2"
            )
            own = counted(state, {account.name}, since, user)
            yield f"    GrpTRESMins={_minutes(state, membership.limits, own)}"
            if membership.max_submit is not None:
                yield f"    MaxJobs= MaxSubmitJobs={membership.max_submit}(0)"


def _minutes(state: SimState, limits: Mapping[str, int], counted: Mapping[str, int]) -> str:
    return ",".join(
        f"{tres}={limits.get(tres, 'N')}({counted.get(tres, 0)})" for tres in state.tres
    )


def _qos(state: SimState, name: str) -> Iterator[str]:
    yield f"QOS={name}({state.qos.index(name) + 1})"
    used = counted(state, {name}, state.qos_counted_since.get(name, 0))  # of its own account
    yield f"    GrpTRESMins={_minutes(state, state.qos_limits.get(name, {}), used)}"
    yield "    Account Limits"
    yield "        No Accounts"
    yield "    User Limits"
    yield "        No Users"
