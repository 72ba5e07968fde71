"""membership_sync: one pass over the members, limits and access of an offering's accounts.

Usernames first, then gather, plan, confirm, guard, apply, and report to Waldur. Before an account
is restricted or limited, its current settings are saved in the resource's backend_metadata.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from waldur_site_agent.backends import (
    AddMembers,
    BackendState,
    Capabilities,
    CreateHomeDirectories,
    CreateProjectDirectory,
    CreateResource,
    ResetUsage,
    Result,
    SetAccess,
    SetBudget,
    SetMemberLimits,
    members_of,
    resource_of,
)
from waldur_site_agent.cycles.budgets import (
    budget_problems,
    forget_ended,
    forget_of_new_accounts,
    note_budgets,
    plan_budgets,
    report_results,
    with_budgets,
)
from waldur_site_agent.cycles.changes import (
    Applied,
    apply_steps,
    subject_of,
    with_allowance,
)
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.deletions import (
    begin_deletions,
    finish_deletions,
    preview_deletions,
    still_in_accounts,
    still_present_after,
)
from waldur_site_agent.cycles.directories import unfinished_directories
from waldur_site_agent.cycles.facts import tell_people, tell_resources
from waldur_site_agent.cycles.feedback import (
    mark_missing,
    report_to_waldur,
)
from waldur_site_agent.cycles.limits import (
    by_account,
    decide,
    limit_step,
    lines_of_unlimited,
    note_unresolved,
)
from waldur_site_agent.cycles.membership_inputs import Gathered, confirm_wanted, gather_wanted
from waldur_site_agent.cycles.membership_writes import preview_membership, save_settings
from waldur_site_agent.cycles.offering import check_emptied_list, read_offering
from waldur_site_agent.cycles.partial_answers import Protected, readable
from waldur_site_agent.cycles.placements import with_moved_projects
from waldur_site_agent.cycles.recreation import with_creations
from waldur_site_agent.cycles.site import WHOLE_OFFERING, CycleReport, ScopeFilter, Site
from waldur_site_agent.cycles.usernames import UsernameResult, UsernamesReport, sync_usernames
from waldur_site_agent.model.backend import Scope
from waldur_site_agent.model.errors import SiteAgentError, TemporaryError
from waldur_site_agent.model.events import WaldurSnapshot
from waldur_site_agent.model.marketplace import (
    OfferingUser,
    Resource,
    TeamMember,
    WaldurOffering,
    backend_components,
)
from waldur_site_agent.planning.budgets import BUDGET
from waldur_site_agent.planning.limits import LimitPrecision
from waldur_site_agent.planning.membership import (
    AccountPlan,
    AccountWanted,
    MembershipPlan,
    Policy,
    in_waldurs_spelling,
    joining,
    normalize_username,
    plan_membership,
    same_but_for_case,
)
from waldur_site_agent.planning.plan import (
    Guarded,
    Plan,
    Step,
    guard,
    moves_in,
    refusal_of,
    removals_in,
)
from waldur_site_agent.planning.remembered import (
    remembered_after,
    remembered_state,
    with_intentions,
    without_closed,
)

NOBODY_LEAVES = "removals suspended in this cycle"
_JOB = "members"


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipReport(CycleReport):
    """The outcome of one pass over the members of an offering."""

    membership: MembershipPlan = field(default_factory=MembershipPlan)
    usernames: UsernamesReport | None = None
    resources: int = 0
    snapshot: WaldurSnapshot = field(default_factory=WaldurSnapshot)
    removals_suspended: str = ""
    """Why no member was removed from any account in this pass; empty if removals took place."""
    failures: tuple[str, ...] = ()
    """What went wrong with single accounts or users; everything else was applied."""
    teams: Mapping[UUID, Collection[TeamMember]] = field(default_factory=dict)
    """The teams that were read, by project."""
    unfinished: tuple[str, ...] = ()
    """Homes without their quota, and project directories that are not complete, after the pass."""

    @property
    def impairment(self) -> str:
        """Why no member could be removed, and which directories are not complete."""
        parts = [f"{NOBODY_LEAVES}: {self.removals_suspended}"] if self.removals_suspended else []
        return "; ".join((*parts, *self.unfinished))

    @property
    def has_failures(self) -> bool:
        """Whether some account or user needs a retry."""
        return bool(self.failures or self.removals_suspended)


def sync_membership(
    site: Site, *, scopes: Collection[Scope] = WHOLE_OFFERING, dry_run: bool = False
) -> MembershipReport:
    """Bring the members, limits and access of every account in line with Waldur.

    Scopes select accounts, not lists: different ways to read a team may not agree.

    Raises:
        TemporaryError: Waldur or the backend could not be read; nothing was changed.
    """
    scope_filter = ScopeFilter.of(scopes)
    offering = read_offering(site)
    usernames, protected = _sync_offering_users(site, offering, scope_filter, dry_run=dry_run)
    wanted = gather_wanted(site, offering, usernames.users, scope_filter, protected)
    report = MembershipReport(
        offering=site.offering.name,
        usernames=usernames,
        snapshot=wanted.snapshot,
        teams=wanted.teams,
    )
    _note_usernames(site, report)
    tell_resources(site)
    tell_people(site, usernames.users, wanted.teams, wanted.provider)
    if not wanted.accounts:
        return _without_accounts(site, wanted, report, dry_run=dry_run)
    with site.backend.session():
        state, wanted = _compared(site, wanted, usernames.users, scope_filter)
        wanted, membership = _confirmed_plan(site, wanted, state, usernames.users)
        membership = _with_limits(site, membership, state)
        guarded = _guarded(site, scope_filter, wanted, membership, state)
        if not dry_run:
            guarded = with_allowance(site, membership.plan, guarded, _JOB)
        report = _planned(report, wanted, membership, guarded)
        _log(site, report)
        if dry_run:
            writes = preview_membership(
                site,
                wanted,
                state,
                membership,
                guarded.refused,
                whole_offering=scope_filter.everything,
            )
            return replace(report, writes=writes)
        _remember_guarded(site, scope_filter, guarded, _members_of(wanted, state))
        changes = _change_backend(site, wanted, state, membership, guarded)
    failures = _report_changes(site, wanted, state, guarded, changes)
    if scope_filter.everything:
        failures += _mark_missing(site, membership)
    members = _with_homes(site, wanted)
    unfinished = unfinished_directories(site, members, [each.id for each in wanted.accounts])
    return replace(report, failures=tuple(failures), unfinished=unfinished)


def _planned(
    report: MembershipReport, wanted: Gathered, membership: MembershipPlan, guarded: Guarded
) -> MembershipReport:
    """The report with what was planned, and what was refused of it."""
    return replace(
        report,
        membership=membership,
        resources=sum(len(account.resources) for account in wanted.accounts),
        refused=guarded.refused,
        refused_reason=guarded.reason,
        digest=guarded.digest,
        removals_suspended=wanted.removals_suspended,
    )


def _sync_offering_users(
    site: Site, offering: WaldurOffering, scope_filter: ScopeFilter, *, dry_run: bool
) -> tuple[UsernamesReport, Protected]:
    needs_all = site.backend.capabilities.needs_facts
    listing = site.waldur.offering_users(offering.uuid, whole=needs_all)
    listed = readable(site, listing, "offering users")
    protected = Protected()
    protected.of_users(listing.unreadable)
    check_emptied_list(site, "offering users", listed)
    report = sync_usernames(
        site,
        offering,
        listed,
        site.usernames,
        dry_run=dry_run,
        who=scope_filter.names_user,
        unreadable=listing.unreadable,
    )
    return report, protected


def _confirmed_plan(
    site: Site, wanted: Gathered, state: BackendState, users: Sequence[OfferingUser]
) -> tuple[Gathered, MembershipPlan]:
    """Plan, and plan again if reading individually corrected what the lists said."""
    membership = _plan(site, wanted, state)
    confirmed = confirm_wanted(site, wanted, membership, state, users)
    if confirmed is wanted:
        return wanted, membership
    return confirmed, _plan(site, confirmed, state)


def _without_accounts(
    site: Site, wanted: Gathered, report: MembershipReport, *, dry_run: bool
) -> MembershipReport:
    """The rest of a pass without accounts: only deletions of users remain."""
    if dry_run:
        return replace(
            report, writes=tuple(preview_deletions(wanted.users_to_delete, wanted.still_present))
        )
    failures = _finish(site, wanted, wanted.users_to_delete, wanted.still_present)
    failures += wanted.not_understood
    site.conditions.note_failures("not synced", failures)
    return replace(report, failures=tuple(failures))


def _mark_missing(site: Site, membership: MembershipPlan) -> list[str]:
    missing = {a.wanted.id: a.wanted.resources for a in membership.accounts if a.is_missing}
    failures = mark_missing(site, missing, len(membership.accounts))
    site.conditions.note_failures("not synced", failures)
    return failures


def _in_scope(
    wanted: Gathered, users: Iterable[OfferingUser], state: BackendState, scope_filter: ScopeFilter
) -> Gathered:
    """The accounts in scope, now that their members are known."""
    if scope_filter.everything:
        return wanted
    names = _names_in_scope(users, scope_filter)
    chosen = tuple(
        account
        for account in wanted.accounts
        if scope_filter.holds_account(account.resources, _people_of(account, state), names)
    )
    return replace(wanted, accounts=chosen)


def _names_in_scope(users: Iterable[OfferingUser], scope_filter: ScopeFilter) -> set[str]:
    in_scope = (user for user in users if scope_filter.holds_user(user))
    return {normalize_username(user.username) for user in in_scope} - {""}


def _accounts_in_scope(
    site: Site, wanted: Gathered, users: Iterable[OfferingUser], scope_filter: ScopeFilter
) -> list[str] | None:
    """The accounts in scope; ``None`` where it is not known which those are.

    A user's are those that the user should be in, and is in. The guard compares with the whole
    offering, so the first pass reads all of it.
    """
    if scope_filter.everything or site.memory.members_at_full_pass is None:
        return None
    if not scope_filter.users:
        return sorted(account.id for account in wanted.accounts)
    names = _names_in_scope(users, scope_filter)
    theirs = site.backend.resources_with(names)
    if theirs is None:
        return None
    return sorted(
        account.id
        for account in wanted.accounts
        if account.id in theirs
        or scope_filter.holds_account(account.resources, account.members or (), names)
    )


def _compared(
    site: Site, wanted: Gathered, users: Sequence[OfferingUser], scope_filter: ScopeFilter
) -> tuple[BackendState, Gathered]:
    """The accounts as the backend has them, and what is wanted that depends on it.

    The move of a project's account is decided from all accounts.
    """
    ids = _accounts_in_scope(site, wanted, users, scope_filter)
    state, chosen = _compared_with(site, wanted, users, scope_filter, ids)
    if ids is not None and any(each.move or each.not_moved for each in chosen.accounts):
        return _compared_with(site, wanted, users, scope_filter, None)
    return state, chosen


def _compared_with(
    site: Site,
    wanted: Gathered,
    users: Sequence[OfferingUser],
    scope_filter: ScopeFilter,
    ids: Collection[str] | None,
) -> tuple[BackendState, Gathered]:
    state = _with_waldur_spelling(site, wanted, site.backend.observe(ids))
    chosen = _in_scope(wanted, users, state, scope_filter)
    chosen = replace(chosen, accounts=with_creations(site, chosen.accounts, state))
    return state, with_moved_projects(site, chosen, state)


def _with_waldur_spelling(site: Site, wanted: Gathered, state: BackendState) -> BackendState:
    """The state with members spelled as in Waldur, where only the case differs."""
    state = _with_remembered(site, wanted, state)
    known = wanted.people.known
    strangers = {m for r in wanted.offering_accounts for m in state.members_of(r) if m not in known}
    if not strangers:
        return state
    members = {name for account in wanted.accounts for name in account.members or ()}
    aliases = same_but_for_case(strangers, known.keys() | members)
    theirs = {m: name for m, name in aliases.items() if site.backend.is_listed_as(name, m)}
    return in_waldurs_spelling(state, theirs)


def _with_remembered(site: Site, wanted: Gathered, state: BackendState) -> BackendState:
    """The state with members and access as noted in Waldur, where the backend cannot tell them."""
    groups = by_account(wanted.snapshot.resources.values())
    return remembered_state(
        without_closed(state, groups, site.backend.capabilities),
        {name: [each.backend_metadata for each in group] for name, group in groups.items()},
        {account.id: account.members for account in wanted.accounts},
        {account.id: account.access for account in wanted.accounts},
        site.backend.capabilities,
    )


def _people_of(account: AccountWanted, state: BackendState) -> set[str]:
    found = state.resources.get(account.id)
    return {*(account.members or ()), *(found.members if found else ())}


def _plan(site: Site, wanted: Gathered, state: BackendState) -> MembershipPlan:
    newcomers = joining(wanted.accounts, state)
    members = _with_homes(site, wanted)
    people = replace(
        wanted.people,
        waiting=site.backend.not_yet_usable(newcomers),
        homeless=site.backend.missing_home_directories(members),
        unset_quotas=site.backend.unset_quotas(members),
    )
    policy = Policy(
        supports=site.backend.supports,
        remove_unknown=site.remove_unknown_users,
        component_types=frozenset(backend_components(site.offering.components)),
        precision=LimitPrecision.of(site.backend),
        unfinished_directories=site.backend.unfinished_directories(
            account.id for account in wanted.accounts
        ),
    )
    return plan_membership(wanted.accounts, state, people, policy)


def _with_homes(site: Site, wanted: Gathered) -> frozenset[str]:
    """The members of all accounts, where the backend makes home directories for them."""
    if CreateHomeDirectories not in site.backend.supports:
        return frozenset()
    return frozenset(name for account in wanted.accounts for name in account.members or ())


def _with_limits(site: Site, membership: MembershipPlan, state: BackendState) -> MembershipPlan:
    """The plan with budgets, and with decisions about other limits that differ."""
    groups = {account.wanted.id: account.wanted.resources for account in membership.accounts}
    uncertain = {a.wanted.id for a in membership.accounts if a.wanted.access is None}
    budgets = plan_budgets(site, groups, state, uncertain=uncertain)
    decisions = decide(
        site, groups, state, site.offering.limits, uncertain=uncertain, governed=budgets.keys()
    )
    accounts = []
    for account in membership.accounts:
        decision = decisions.get(account.wanted.id)
        steps = (limit_step(decision),) if decision is not None and decision.to_set else ()
        accounts.append(replace(account, limits=decision, steps=(*account.steps, *steps)))
    unlimited = tuple(lines_of_unlimited(site, groups, state))
    membership = replace(membership, accounts=tuple(accounts), unlimited=unlimited)
    return with_budgets(membership, budgets)


def _guarded(
    site: Site,
    scope_filter: ScopeFilter,
    wanted: Gathered,
    membership: MembershipPlan,
    state: BackendState,
) -> Guarded:
    found = _members_of(wanted, state)
    if not scope_filter.everything:
        found = max(found, site.memory.members_at_full_pass or 0)
    return guard(
        membership.plan,
        found,
        0,
        site.thresholds,
        removed_before=site.memory.removals_since_full_pass,
        projects_found=wanted.projects,
        moved_before=site.memory.moves_since_full_pass,
        subject=subject_of(site.offering, _JOB),
    )


def _members_of(wanted: Gathered, state: BackendState) -> int:
    """How many members the offering's accounts have together."""
    ours = wanted.offering_accounts & state.resources.keys()
    return sum(len(state.resources[name].members) for name in ours)


def _remember_guarded(
    site: Site, scope_filter: ScopeFilter, guarded: Guarded, members: int
) -> None:
    """Add up removals and moves of partial passes until a pass covers the whole offering."""
    if scope_filter.everything:
        site.memory.removals_since_full_pass = site.memory.moves_since_full_pass = 0
        site.memory.members_at_full_pass = members
        site.allowances.settle(site.offering.name, _JOB, guarded.digest)
    else:
        site.memory.removals_since_full_pass += removals_in(guarded.allowed)
        site.memory.moves_since_full_pass += moves_in(guarded.allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """What was changed in the backend, and saved in Waldur beforehand."""

    membership: MembershipPlan
    """The plan, with resources as saved in Waldur."""
    users_to_delete: Sequence[OfferingUser]
    applied: Sequence[Applied]
    unsaved: Mapping[str, str]
    """By account, why its settings could not be saved, so that it was not changed."""


def _change_backend(
    site: Site,
    wanted: Gathered,
    state: BackendState,
    membership: MembershipPlan,
    guarded: Guarded,
) -> _Changes:
    """Save the settings needed to undo the changes, then apply them."""
    users_to_delete = begin_deletions(site, wanted.users_to_delete)
    capabilities = site.backend.capabilities
    intended = with_intentions(state, guarded.allowed.actions, capabilities)
    membership, unsaved = save_settings(site, membership, intended)
    membership, unsaved = _forget_budgets(site, membership, unsaved)
    steps = [s for s in guarded.allowed.steps if not _is_unsaved(s, unsaved, capabilities)]
    applied = apply_steps(site, [s for s in steps if isinstance(s.action, ResetUsage)])
    membership, unset = note_budgets(site, membership, applied)
    applied += apply_steps(site, [s for s in steps if not _waits_for_note(s, unset)])
    report_results(site, membership, applied, unset)
    return _Changes(
        membership=membership,
        users_to_delete=users_to_delete,
        applied=applied,
        unsaved={**unsaved, **{name: text for name, text in unset.items() if text}},
    )


def _forget_budgets(
    site: Site, membership: MembershipPlan, unsaved: Mapping[str, str]
) -> tuple[MembershipPlan, dict[str, str]]:
    """Drop the notes of budgets of accounts that are made again."""
    made = [a.wanted for a in membership.accounts if a.wanted.creation is not None]
    failed = forget_of_new_accounts(site, [each.resources[0] for each in made])
    troubles = {
        each.id: f"{each.id}: not made again yet: {failed[each.resources[0].uuid]}"
        for each in made
        if each.resources[0].uuid in failed
    }
    accounts = tuple(
        replace(account, wanted=replace(account.wanted, resources=_without_notes(account.wanted)))
        if account.wanted.creation is not None and account.wanted.id not in troubles
        else account
        for account in membership.accounts
    )
    return replace(membership, accounts=accounts), {**unsaved, **troubles}


def _without_notes(wanted: AccountWanted) -> tuple[Resource, ...]:
    return tuple(
        replace(
            resource,
            backend_metadata={k: v for k, v in resource.backend_metadata.items() if k != BUDGET},
        )
        for resource in wanted.resources
    )


def _waits_for_note(step: Step, unset: Collection[str]) -> bool:
    return isinstance(step.action, ResetUsage) or (
        isinstance(step.action, SetBudget) and step.action.resource in unset
    )


def _report_changes(
    site: Site, wanted: Gathered, state: BackendState, guarded: Guarded, changes: _Changes
) -> list[str]:
    """Report the changes to Waldur; return what went wrong on either side."""
    applied, membership, unsaved = changes.applied, changes.membership, changes.unsaved
    failures = [*_troubles(membership), *wanted.not_understood, *_failures(applied)]
    capabilities = site.backend.capabilities
    changed = _read_afterwards(applied) if capabilities.tells_access else []
    after = _read_again(site, state, changed) if changed else state
    after = remembered_after(
        with_intentions(after, [step.action for step, _ in applied], capabilities),
        [outcome for _, outcome in applied],
        capabilities,
    )
    broken = _broken_accounts(applied, guarded.refused) | unsaved.keys()
    membership, kept = forget_ended(site, membership, broken)
    still_present = still_present_after(applied, guarded.refused, membership, wanted)
    others = [
        *wanted.unconfirmed,
        *unsaved.values(),
        *kept,
        *report_to_waldur(site, membership, after, broken),
        *_finish(site, wanted, changes.users_to_delete, still_present, after),
    ]
    site.conditions.note_failures("not synced", others)
    return failures + others


def _finish(
    site: Site,
    wanted: Gathered,
    users_to_delete: Sequence[OfferingUser],
    still_present: frozenset[str] | None,
    after: BackendState | None = None,
) -> list[str]:
    """Mark users deleted who are in no account, according to a new read of the backend.

    ``after`` is what the agent remembers, of a backend that does not tell its members.
    """
    if still_present is None:
        return []
    going = [
        user for user in users_to_delete if normalize_username(user.username) not in still_present
    ]
    if not going:
        return []
    try:
        state = site.backend.observe()
        if not site.backend.capabilities.tells_members:
            state = after or _with_remembered(site, wanted, state)
        found, failures = still_in_accounts(site, going, wanted, state)
    except SiteAgentError as error:
        return [f"{len(going)} users not marked deleted: the backend could not be read: {error}"]
    return failures + finish_deletions(site, going, found)


def _troubles(membership: MembershipPlan) -> list[str]:
    wanted = [account.wanted for account in membership.accounts]
    return [
        *(
            f"{account.id}: {account.trouble}; its members stay unchanged until then"
            for account in wanted
            if account.trouble
        ),
        *(
            f"{plan.wanted.id}: {', '.join(plan.kept_out)} not added: {plan.wanted.nobody_joins}"
            for plan in membership.accounts
            if plan.kept_out
        ),
        *(f"{a.id}: not made again: {a.creation_problem}" for a in wanted if a.creation_problem),
        *(
            f"{name}: budget not set: {problem}"
            for name, problem in budget_problems(membership.accounts).items()
        ),
    ]


def _is_unsaved(step: Step, unsaved: dict[str, str], capabilities: Capabilities) -> bool:
    noted = isinstance(step.action, SetAccess | SetMemberLimits | CreateResource) or (
        isinstance(step.action, AddMembers) and not capabilities.tells_members
    )
    return noted and resource_of(step.action) in unsaved


def _read_afterwards(applied: Sequence[Applied]) -> list[str]:
    """The accounts whose metadata is no longer what it was."""
    changed = {
        resource_of(step.action)
        for step, outcome in applied
        if isinstance(step.action, SetAccess | CreateResource)
        and outcome.result is not Result.FAILED
    }
    return sorted(changed)


def _read_again(site: Site, state: BackendState, ids: Collection[str]) -> BackendState:
    """The state with some accounts as they are now; those that are gone are not in it."""
    again = site.backend.observe(ids)
    kept = {name: found for name, found in state.resources.items() if name not in ids}
    return BackendState(resources={**kept, **again.resources})


def _failures(applied: Sequence[Applied]) -> list[str]:
    failures = [str(outcome.error) for _, outcome in applied if outcome.error is not None]
    for _, outcome in applied:
        failures += [
            f"{left.name}: {left.error}"
            for left in outcome.skipped
            if isinstance(outcome.action, CreateHomeDirectories | CreateProjectDirectory)
            or not isinstance(
                left.error, TemporaryError
            )  # waiting for the operating system is not a failure
        ]
    return failures


def _broken_accounts(applied: Sequence[Applied], refused: Plan) -> set[str]:
    """The accounts with failed or refused steps."""
    broken = {resource_of(step.action) for step, outcome in applied if outcome.error is not None}
    return broken | {resource_of(step.action) for step in refused.steps}


def _log(site: Site, report: MembershipReport) -> None:
    if reason := report.removals_suspended:
        site.conditions.note(NOBODY_LEAVES, "lists", cause=cause_of(reason), reason=reason)
    for account in report.membership.accounts:
        _note_account(site, account)
        if account.limits is not None:
            note_unresolved(site, {account.wanted.id: account.limits})
    for text in report.membership.unlimited:
        site.conditions.note("no limit", text, level=logging.INFO, reason=text)
    if report.refused_reason:
        names = {
            resource_of(step.action): list(members_of(step.action)) for step in report.refused.steps
        }
        event = refusal_of(report.refused)
        site.log.error(event, reason=report.refused_reason, digest=report.digest, members=names)


def _note_account(site: Site, account: AccountPlan) -> None:
    name, conditions = account.wanted.id, site.conditions
    for user in account.unknown:
        conditions.note(
            "account members unknown to Waldur left unchanged",
            f"{user} ({name})",
            level=logging.INFO,
            resource=name,
            user=user,
        )
    for user in account.waiting:
        conditions.note(
            "members not added yet: unknown to the backend",
            f"{user} ({name})",
            level=logging.INFO,
            resource=name,
            user=user,
        )
    if reason := account.wanted.trouble:
        cause = cause_of(reason, name)
        conditions.note("members left unchanged", name, cause=cause, resource=name, reason=reason)
    for event, reason in (
        ("members not added", account.wanted.nobody_joins if account.kept_out else ""),
        ("account not made again", account.wanted.creation_problem),
        ("account of a project not moved", account.wanted.not_moved),
        ("budget not set", str((account.budget and account.budget.problem) or "")),
    ):
        if reason:
            cause = cause_of(reason, name)
            conditions.note(event, name, cause=cause, resource=name, reason=reason)
    if account.is_missing:
        conditions.note("account not found in the backend", name, resource=name)


_NAMES_NOT_GIVEN = {
    UsernameResult.REFUSED: "no username could be assigned",
    UsernameResult.LEFT: "username left unchanged; retried in the next cycle",
}


def _note_usernames(site: Site, report: MembershipReport) -> None:
    for change in report.usernames.changes if report.usernames is not None else ():
        event, name = _NAMES_NOT_GIVEN.get(change.result), change.user.user_username
        if event is not None:
            site.conditions.note(
                event,
                name or str(change.user.uuid),
                cause=cause_of(change.reason, name),
                user=name,
                offering_user=str(change.user.uuid),
                reason=change.reason,
            )
    duplicates = report.usernames.duplicates if report.usernames is not None else {}
    for name, people in duplicates.items():
        site.conditions.note(
            "several users have the same username in Waldur",
            name,
            username=name,
            users=[person.user_username or str(person.user_uuid) for person in people],
            remedy="give each of them a different username in Waldur",
        )
