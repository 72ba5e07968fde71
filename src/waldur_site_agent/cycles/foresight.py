"""What a membership pass would write in Waldur, for dry runs: nothing is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.backends import BackendState, SetAccess
from waldur_site_agent.cycles.deletions import foresee_deletions
from waldur_site_agent.cycles.membership_feedback import foresee_feedback
from waldur_site_agent.cycles.missing_accounts import foresee_marks
from waldur_site_agent.planning.notes import needs_notes, notes_for
from waldur_site_agent.planning.writes import metadata_write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.backends import BackendResource
    from waldur_site_agent.cycles.membership_gathering import Gathered
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.planning.membership import AccountPlan, MembershipPlan
    from waldur_site_agent.planning.plan import Plan
    from waldur_site_agent.planning.writes import Write

_READ_AFTERWARDS = "(read afterwards)"


def foresee_membership(
    site: Site,
    wanted: Gathered,
    state: BackendState,
    membership: MembershipPlan,
    refused: Plan,
    *,
    whole_offering: bool,
) -> tuple[Write, ...]:
    """The writes of the pass if everything went well, in its order.

    ``refused`` is what the guard does not let through: those accounts do not count as synced, and
    the people in question stay.
    """
    broken = {getattr(step.action, "resource", "") for step in refused.steps}
    staying = {name for step in refused.steps for name in getattr(step.action, "members", ())}
    staying |= wanted.staying
    if any(account.wanted.members is None for account in membership.accounts):
        staying.add("*")
    notes, noted = _notes(membership, state)
    marks: list[Write] = []
    if whole_offering:
        missing = {a.wanted.id: a.wanted.resources for a in membership.accounts if a.is_missing}
        marks = foresee_marks(missing, len(membership.accounts))
    after = _after(membership, state)
    return (
        *notes,
        *foresee_feedback(site, noted, after, broken),
        *foresee_deletions(wanted.leavers, staying),
        *marks,
    )


def _notes(membership: MembershipPlan, state: BackendState) -> tuple[list[Write], MembershipPlan]:
    """What is noted before accounts are changed, and the plan with resources that have it."""
    writes: list[Write] = []
    accounts: list[AccountPlan] = []
    for account in membership.accounts:
        found = state.resources.get(account.wanted.id)
        if found is None or not needs_notes(account, found):
            accounts.append(account)
            continue
        resources = []
        for resource in account.wanted.resources:
            metadata = notes_for(resource.backend_metadata, account, found)
            write = metadata_write(resource, metadata, "to restore it later")
            writes += [write] if write.changes else []
            resources.append(replace(resource, backend_metadata=metadata))
        wanted = replace(account.wanted, resources=tuple(resources))
        accounts.append(replace(account, wanted=wanted))
    return writes, replace(membership, accounts=tuple(accounts))


def _after(membership: MembershipPlan, state: BackendState) -> BackendState:
    """The backend after the plan, as far as what Waldur is told depends on it."""
    changed: dict[str, BackendResource] = {}
    for account in membership.accounts:
        for step in account.steps:
            if isinstance(step.action, SetAccess):
                found = state.resources[account.wanted.id]
                changed[found.id] = replace(
                    found, access=step.action.access, metadata=_metadata_after(found)
                )
    return BackendState(resources={**state.resources, **changed})


def _metadata_after(found: BackendResource) -> Mapping[str, str]:
    return dict.fromkeys(found.metadata, _READ_AFTERWARDS)
