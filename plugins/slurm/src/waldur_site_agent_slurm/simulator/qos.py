"""``sacctmgr add qos``, ``modify qos`` and ``remove qos``."""

from __future__ import annotations

from waldur_site_agent.backends.simulation import Answer, RefusedError
from waldur_site_agent_slurm.simulator import counting, limits
from waldur_site_agent_slurm.simulator.request import names, read_request, unknown_option
from waldur_site_agent_slurm.simulator.state import SimAccount, SimMembership, SimState

_COLUMNS = {
    "description": "descr", "flags": "flags", "grptres": "grptres", "maxjobsperuser": "maxjobspu",
    "maxsubmitjobsperuser": "maxsubmitpu", "maxwall": "maxwall", "mintresperjob": "mintres",
}  # fmt: skip
_KEYS = ("name", "cluster", *_COLUMNS, "grptresmins", "maxtresmins", "rawusage")


def add_qos(state: SimState, words: list[str]) -> Answer:
    """Make QOS; those that exist are passed over."""
    where = read_request(words, _KEYS).where
    fresh = [name for name in names(where.get("name", "")) if name not in state.qos]
    if not fresh:
        return Answer(1, " Nothing new added.\n")
    found = limits.read_limits(state, where.get("grptresmins", ""), adding=True)
    for name in fresh:
        state.qos.append(name)
        state.qos_columns[name] = {"descr": name, **_columns(where)}
        state.qos_limits[name] = dict(found)
    return Answer(0, " Adding QOS(s)\n" + "".join(f"  {name}\n" for name in fresh))


def modify_qos(state: SimState, words: list[str]) -> Answer:
    """Change QOS, of all clusters."""
    request = read_request(words, _KEYS)
    if "rawusage" in request.set:
        return counting.reset_qos(state, request)
    found = [name for name in names(request.where.get("name", "")) if name in state.qos]
    if not found:
        return Answer(1, " Nothing modified\n")
    text = request.set.get("grptresmins")
    changes = {} if text is None else limits.read_limits(state, text)
    if not request.set:
        raise RefusedError(unknown_option("set"))
    for name in found:
        state.qos_columns.setdefault(name, {}).update(_columns(request.set))
        limits.merge(state.qos_limits.setdefault(name, {}), changes)
        if "maxtresmins" in request.set:
            of_jobs = limits.read_limits(state, request.set["maxtresmins"])
            limits.merge(state.qos_job_limits.setdefault(name, {}), of_jobs)
    return Answer(0, " Modified qos...\n" + "".join(f"  {name}\n" for name in found))


def remove_qos(state: SimState, words: list[str]) -> Answer:
    """Remove QOS, unless one is somebody's default, and from every list."""
    where = read_request(words, _KEYS).where
    found = [name for name in names(where.get("name", "")) if name in state.qos]
    if not found:
        return Answer(1, " Nothing deleted\n")
    lines = [
        f"  DefQOS = {association.default_qos:<10} C = {state.cluster:<10} A = {account:<10}"
        for account, association in _associations(state)
        if association.default_qos in found
    ]
    if lines:
        said = " Associations listed below have these as their Default QOS.\n"
        return Answer(1, said + "".join(f"{line}\n" for line in lines) + " Changes Discarded\n")
    for name in found:
        state.qos.remove(name)
        state.qos_columns.pop(name, None)
        state.qos_limits.pop(name, None)
        for _, association in _associations(state):
            association.qos = [each for each in association.qos if each != name]
    return Answer(0, " Deleting QOS(s)...\n" + "".join(f"  {name}\n" for name in found))


def _associations(state: SimState) -> list[tuple[str, SimAccount | SimMembership]]:
    found: list[tuple[str, SimAccount | SimMembership]] = []
    for account in state.accounts.values():
        found.append((account.name, account))
        found += [(account.name, member) for member in account.members.values()]
    return found


def _columns(said: dict[str, str]) -> dict[str, str]:
    return {
        column: said[key].lower() if column == "descr" else said[key]
        for key, column in _COLUMNS.items()
        if key in said
    }
