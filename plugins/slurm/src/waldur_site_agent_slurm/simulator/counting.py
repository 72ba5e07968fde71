"""``sacctmgr modify ... set RawUsage=0``: slurmctld counts from zero."""

from __future__ import annotations

from waldur_site_agent.backends.simulation import Answer, RefusedError
from waldur_site_agent_slurm.simulator.jobs import clock
from waldur_site_agent_slurm.simulator.request import Request, names, unknown_option
from waldur_site_agent_slurm.simulator.state import SimState


def reset_accounts(state: SimState, request: Request) -> Answer:
    """Reset accounts, with everything below them."""
    wanted = names(request.where.get("name", "") or request.where.get("account", ""))
    known = [n for n in wanted if n in state.accounts and state.accounts[n].associated]
    if len(known) < len(wanted) or not wanted:
        name = next((each for each in wanted if each not in known), "")
        said = (
            f"sacctmgr: error: Failed to find cluster {state.cluster} account {name} association "
            "in database\n"
        )
        return Answer(1, "", said)
    now = _moment(state, request)
    for name in known:
        for account in state.below(name):
            account.counted_since = now
        state.usage_resets.append((now, name))
    return _answer(state, request)


def reset_qos(state: SimState, request: Request) -> Answer:
    """Reset QOS."""
    wanted = names(request.where.get("name", ""))
    missing = [name for name in wanted if name not in state.qos]
    if missing or not wanted:
        said = f"sacctmgr: error: Failed to find QOS {''.join(missing[:1])}\n"
        return Answer(1, "", said)
    now = _moment(state, request)
    for name in wanted:
        state.qos_counted_since[name] = now
        state.usage_resets.append((now, name))
    return _answer(state, request)


def _moment(state: SimState, request: Request) -> int:
    if request.set["rawusage"] != "0":
        raise RefusedError(unknown_option(f"RawUsage={request.set['rawusage']}"))
    return clock(state)


def _answer(state: SimState, request: Request) -> Answer:
    if "cluster" in request.where:
        return Answer(0)
    return Answer(0, f"No cluster specified, resetting on local cluster {state.cluster}\n")
