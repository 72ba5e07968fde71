"""Members and access that the agent remembers where the backend cannot tell them.

They are noted in the ``backend_metadata`` of the resource, as intended before a change and as done
after it. After a kill in between, an addition is repeated, and a removal or restoration still
reaches whoever may have been added: nobody keeps access because an answer was lost, and nothing is
repeated for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    BackendResource,
    BackendState,
    Capabilities,
    Outcome,
    RemoveMembers,
    Result,
    SetAccess,
)
from waldur_site_agent.model.marketplace import Resource, ResourceState

MEMBERS, ADDING, ACCESS = "agent_members", "agent_members_adding", "agent_access"
"""The keys of ``backend_metadata``: those added, those about to be, and the access that was set."""

REMEMBERED = (MEMBERS, ADDING, ACCESS)
_INTENDED = "?"
"""Behind the access that is about to be set."""

Notes = Mapping[str, object]


def without_closed(
    state: BackendState,
    groups: Mapping[str, Iterable[Resource]],
    capabilities: Capabilities,
    unserved: Collection[str] = (ResourceState.ERRED, ResourceState.TERMINATING),
) -> BackendState:
    """The state without accounts that were closed, where deleted ones are kept.

    The resource of a closed account is on its way out, or could not be restored. Members and the
    limits of zero would make it look like one that is in use.

    Args:
        state: the backend, as it was read.
        groups: by account, its resources.
        capabilities: whether the backend keeps what was deleted.
        unserved: the states in which a resource may have a closed account.
    """
    if not capabilities.keeps_deleted:
        return state
    closed = {
        name
        for name, group in groups.items()
        if looks_closed(state.resources.get(name), capabilities)
        and all(resource.state in unserved for resource in group)
    }
    return BackendState(
        resources={name: each for name, each in state.resources.items() if name not in closed}
    )


def looks_closed(found: BackendResource | None, capabilities: Capabilities) -> bool:
    """Whether an account may be one that was closed where deleted ones are kept."""
    return (
        capabilities.keeps_deleted
        and found is not None
        and not (found.members or any(found.limits.values()))
    )


def remembered_state(
    state: BackendState,
    notes: Mapping[str, Iterable[Notes]],
    members: Mapping[str, Collection[str] | None],
    access: Mapping[str, Access | None],
    capabilities: Capabilities,
) -> BackendState:
    """The state with what was noted of it, where the backend cannot tell.

    Args:
        state: the backend, as it was read.
        notes: by account, the ``backend_metadata`` of its resources.
        members: by account, the wanted members, if known.
        access: by account, the wanted access, if known.
        capabilities: what the backend can tell.
    """
    if capabilities.tells_members and capabilities.tells_access:
        return state
    resources = dict(state.resources)
    for name in notes.keys() & resources.keys():
        found = resources[name]
        for noted in notes[name]:
            kept = {key: str(noted[key]) for key in REMEMBERED if noted.get(key)}
            found = replace(found, metadata={**found.metadata, **kept})
        if not capabilities.tells_members:
            found = replace(found, members=_members(found, members.get(name)))
        if not capabilities.tells_access:
            found = replace(found, access=_access(found, access.get(name)))
        resources[name] = found
    return BackendState(resources=resources)


def _members(found: BackendResource, wanted: Collection[str] | None) -> frozenset[str]:
    """Those added, and those who may have been and are not wanted."""
    added, adding = _names(found, MEMBERS), _names(found, ADDING)
    return added | (adding - frozenset(wanted) if wanted is not None else adding)


def _access(found: BackendResource, wanted: Access | None) -> Access | None:
    text = found.metadata.get(ACCESS, Access.NORMAL.value)
    try:
        noted = Access(text.removesuffix(_INTENDED))
    except ValueError:
        return None
    return None if text.endswith(_INTENDED) and wanted is noted else noted


def with_intentions(
    state: BackendState, actions: Iterable[Action], capabilities: Capabilities
) -> BackendState:
    """The state with notes of what is about to be added or restricted."""
    resources = dict(state.resources)
    for action in actions:
        match action:
            case AddMembers(resource, members) if not capabilities.tells_members:
                found = resources[resource]
                names = _names(found, ADDING) | frozenset(members)
                resources[resource] = _noting(found, ADDING, " ".join(sorted(names)))
            case SetAccess(resource, access) if (
                not capabilities.tells_access and access is not Access.NORMAL
            ):
                found = resources[resource]
                resources[resource] = _noting(found, ACCESS, access.value + _INTENDED)
            case _:
                pass
    return BackendState(resources=resources)


def remembered_after(
    state: BackendState, outcomes: Iterable[Outcome], capabilities: Capabilities
) -> BackendState:
    """The state after the actions, as far as only the agent knows it."""
    resources = dict(state.resources)
    for outcome in outcomes:
        if outcome.result is Result.FAILED:
            continue
        skipped = {left.name for left in outcome.skipped}
        match outcome.action:
            case AddMembers(resource, members) if not capabilities.tells_members:
                served = frozenset(members) - skipped
                resources[resource] = _with_members(resources[resource], served, frozenset())
            case RemoveMembers(resource, members) if not capabilities.tells_members:
                served = frozenset(members) - skipped
                resources[resource] = _with_members(resources[resource], frozenset(), served)
            case SetAccess(resource, access) if not capabilities.tells_access:
                text = "" if access is Access.NORMAL else access.value
                found = replace(resources[resource], access=access)
                resources[resource] = _noting(found, ACCESS, text)
            case _:
                pass
    return BackendState(resources=resources)


def _with_members(
    found: BackendResource, added: frozenset[str], removed: frozenset[str]
) -> BackendResource:
    members = (_names(found, MEMBERS) | added) - removed
    adding = _names(found, ADDING) - added - removed
    found = replace(found, members=(found.members | added) - removed)
    found = _noting(found, MEMBERS, " ".join(sorted(members)))
    return _noting(found, ADDING, " ".join(sorted(adding)))


def _names(found: BackendResource, key: str) -> frozenset[str]:
    return frozenset(found.metadata.get(key, "").split())


def _noting(found: BackendResource, key: str, text: str) -> BackendResource:
    metadata = {name: value for name, value in found.metadata.items() if name != key}
    return replace(found, metadata={**metadata, key: text} if text else metadata)
