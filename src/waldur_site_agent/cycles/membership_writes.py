"""What a membership pass writes to Waldur before it changes accounts; in a preview, all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from waldur_site_agent.backends import (
    BackendResource,
    BackendState,
    SetAccess,
    resource_of,
)
from waldur_site_agent.cycles.budgets import (
    preview_ended,
    preview_notes,
    preview_results,
)
from waldur_site_agent.cycles.changes import (
    send_write,
)
from waldur_site_agent.cycles.deletions import (
    preview_deletions,
    still_present_after,
)
from waldur_site_agent.cycles.feedback import (
    preview_feedback,
    preview_marks,
)
from waldur_site_agent.cycles.membership_inputs import Gathered
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.planning.budgets import NEW_ACCOUNT, has_note, without_note
from waldur_site_agent.planning.membership import (
    AccountPlan,
    MembershipPlan,
    as_created,
    needs_notes,
    notes_for,
)
from waldur_site_agent.planning.plan import (
    Plan,
    Write,
    metadata_write,
)
from waldur_site_agent.planning.remembered import (
    with_intentions,
)
from waldur_site_agent.waldur import concurrently


def save_settings(
    site: Site, membership: MembershipPlan, state: BackendState
) -> tuple[MembershipPlan, dict[str, str]]:
    """Save in backend_metadata what is needed to undo a change, before the change is made.

    This is the account's setup before it is restricted, and the members whose limits the agent
    sets.

    Returns:
        The plan with the saved metadata; and, by account, why saving failed. Such an account is
        not changed in this pass, so that nothing gets lost.
    """
    first = [
        account
        for account in membership.accounts
        if account.wanted.id in state.resources
        and needs_notes(account, state.resources[account.wanted.id])
    ]
    saved: dict[str, AccountPlan] = {}
    unsaved: dict[str, str] = {}
    for attempt in concurrently(lambda account: _save(site, account, state), first):
        name = attempt.item.wanted.id
        if attempt.value is not None:
            saved[name] = attempt.value
        else:
            unsaved[name] = (
                f"{name}: not restricted or limited yet: could not save the current QOS/limits to "
                f"backend_metadata, so they could not be restored later: {attempt.error}"
            )
    accounts = tuple(saved.get(account.wanted.id, account) for account in membership.accounts)
    return replace(membership, accounts=accounts), unsaved


def _save(site: Site, account: AccountPlan, state: BackendState) -> AccountPlan:
    writes, noted = _noted(account, state.resources[account.wanted.id])
    for write in writes:
        send_write(site, write)
    return noted


def _noted(account: AccountPlan, found: BackendResource) -> tuple[list[Write], AccountPlan]:
    """What is to be saved of an account, and the account with it."""
    writes, resources = [], []
    for resource in account.wanted.resources:
        metadata = notes_for(resource.backend_metadata, account, found)
        write = metadata_write(resource, metadata, "to restore it later")
        writes += [write] if write.changes else []
        resources.append(replace(resource, backend_metadata=metadata))
    wanted = replace(account.wanted, resources=tuple(resources))
    return writes, replace(account, wanted=wanted)


def preview_membership(
    site: Site,
    wanted: Gathered,
    state: BackendState,
    membership: MembershipPlan,
    refused: Plan,
    *,
    whole_offering: bool,
) -> tuple[Write, ...]:
    """The writes of the pass if everything succeeds, in order.

    ``refused`` are the steps that the guard refuses: their accounts do not count as synced, and
    their members stay.
    """
    broken = {resource_of(step.action) for step in refused.steps}
    still_present = still_present_after((), refused, membership, wanted)
    intended = with_intentions(state, membership.plan.actions, site.backend.capabilities)
    notes, noted = _notes(membership, intended)
    budgets, noted = preview_notes(noted)
    ended, noted = preview_ended(noted)
    marks: list[Write] = []
    if whole_offering:
        missing = {a.wanted.id: a.wanted.resources for a in membership.accounts if a.is_missing}
        marks = preview_marks(missing, len(membership.accounts))
    after = _after(membership, state)
    forgotten = [
        without_note(resource, NEW_ACCOUNT)
        for account in membership.accounts
        if account.wanted.creation is not None
        for resource in account.wanted.resources
        if has_note(resource)
    ]
    return (
        *notes,
        *forgotten,
        *budgets,
        *preview_results(membership),
        *ended,
        *preview_feedback(site, noted, after, broken),
        *preview_deletions(wanted.users_to_delete, still_present),
        *marks,
    )


def _notes(membership: MembershipPlan, state: BackendState) -> tuple[list[Write], MembershipPlan]:
    """The settings saved before accounts are changed, and the plan with updated resources."""
    writes: list[Write] = []
    accounts: list[AccountPlan] = []
    for account in membership.accounts:
        found = state.resources.get(account.wanted.id)
        if found is None or not needs_notes(account, found):
            accounts.append(account)
            continue
        saved, noted = _noted(account, found)
        writes += saved
        accounts.append(noted)
    return writes, replace(membership, accounts=tuple(accounts))


def _after(membership: MembershipPlan, state: BackendState) -> BackendState:
    """The backend after the plan, as far as reports to Waldur depend on it."""
    changed: dict[str, BackendResource] = {}
    for account in membership.accounts:
        found = state.resources.get(account.wanted.id) or _made_again(account)
        if found is None:
            continue
        changed[found.id] = found
        for step in account.steps:
            if isinstance(step.action, SetAccess):
                changed[found.id] = replace(
                    found, access=step.action.access, metadata=_metadata_after(found)
                )
    return BackendState(resources={**state.resources, **changed})


def _made_again(account: AccountPlan) -> BackendResource | None:
    """An account that the plan makes; its metadata is likely to be what Waldur has."""
    if account.wanted.creation is None:
        return None
    metadata = account.wanted.resources[0].backend_metadata
    shown = {k: v for k, v in metadata.items() if isinstance(v, str) and not k.endswith("_before")}
    return replace(as_created(account.wanted.creation), metadata=shown)


_READ_AFTERWARDS = "(read afterwards)"


def _metadata_after(found: BackendResource) -> Mapping[str, str]:
    return dict.fromkeys(found.metadata, _READ_AFTERWARDS)
