"""Limits beside the memberships: by command, and those that a report of usage tells Waldur."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent.backends import SetLimits
from waldur_site_agent.cycles.applying import apply_steps
from waldur_site_agent.cycles.limit_decisions import decide, limited_components, note_left
from waldur_site_agent.cycles.optional_calls import tell_optional
from waldur_site_agent.cycles.report import CommandOutcome
from waldur_site_agent.cycles.unreadable import readable, stand_ins
from waldur_site_agent.cycles.writing import send_write
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.limit_sync import unlimited_components
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.planning.writes import amount_text, limits_write
from waldur_site_agent.waldur import concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.limit_sync import Authority, LimitDecision
    from waldur_site_agent.planning.writes import Write


def sync_resource_limits(
    site: Site, *, follows: Authority = "backend", dry_run: bool = False
) -> CommandOutcome:
    """Let one side follow the other, once, whatever the file's ``limits`` says.

    Args:
        site: the offering at work.
        follows: whose limits count: ``backend`` tells Waldur, ``waldur`` sets them on accounts.
        dry_run: change nothing.

    Raises:
        TemporaryError: one side could not be read.
    """
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid)
    groups = by_account(readable(site, listing, "resources"))
    uncertain = {each.account for each in stand_ins(listing.unreadable)}
    state = site.backend.observe()
    decisions = decide(site, groups, state, follows, uncertain=uncertain)
    remarks = [f"{name}  {text}" for name, d in decisions.items() for text in d.left]
    changing = [d for d in decisions.values() if d.changes_something]
    remarks += lines_of_unlimited(site, groups, state)
    if dry_run:
        return CommandOutcome(tuple(_line(site, d) for d in changing), remarks=tuple(remarks))
    done, trouble = _set(site, changing) if follows == "waldur" else _tell(site, changing)
    return CommandOutcome(tuple(_line(site, d) for d in done), tuple(trouble), tuple(remarks))


def by_account(resources: Iterable[Resource]) -> dict[str, list[Resource]]:
    """The resources of each account, without those that have none yet."""
    groups: dict[str, list[Resource]] = defaultdict(list)
    for resource in resources:
        if resource.account:
            groups[resource.account].append(resource)
    return groups


def lines_of_unlimited(
    site: Site, groups: Mapping[str, Sequence[Resource]], state: BackendState
) -> list[str]:
    """Components sold by limit of which neither side has one, with the accounts."""
    components = limited_components(site)
    names: dict[str, list[str]] = defaultdict(list)
    for name, resources in sorted(groups.items()):
        found = state.resources.get(name)
        idle = all(r.state in (ResourceState.OK, ResourceState.ERRED) for r in resources)
        if found is None or not idle:
            continue
        for component in unlimited_components(resources[0], found, components):
            names[component].append(name)
    return [unlimited_text(component, accounts) for component, accounts in names.items()]


_SHOWN = 5
_BY_HAND = "limits sync --to waldur"


def unlimited_text(component: str, accounts: Sequence[str]) -> str:
    """What to know about accounts without a limit that neither side has."""
    shown = ", ".join(accounts[:_SHOWN])
    if len(accounts) > _SHOWN:
        shown += f" and {len(accounts) - _SHOWN} more"
    return (
        f"limit {component}: neither Waldur nor the account has one, so nothing bounds its use "
        f"({shown}); order one in Waldur"
    )


def limit_step(decision: LimitDecision) -> Step:
    """What sets on the account what was sold."""
    reasons = {each.name: each.entitlement for each in decision.changed}
    action = SetLimits(decision.found.id, decision.to_set)
    return Step(action, "sold in Waldur", before=decision.found.limits, reasons=reasons)


def told_write(site: Site, decision: LimitDecision, reason: str = "limits: backend") -> Write:
    """What tells Waldur the limits that were found."""
    limits = decision.to_tell or {}
    notes = {d.name: f"the account has {amount_text(d.found)}" for d in decision.changed}
    return limits_write(decision.resource, limits, site.offering.components, reason, notes)


def report_limits(
    site: Site, resources: Iterable[Resource], state: BackendState, *, dry_run: bool = False
) -> tuple[list[Write], list[str]]:
    """Tell Waldur the limits found, beside other work, where the file lets the backend win.

    What Waldur refused once, for this token or these very limits, is not said again by this
    process.

    Args:
        site: the offering at work.
        resources: those to look at; each has an account of its own.
        state: the backend as it is.
        dry_run: tell nothing.

    Returns:
        What is told, and what went wrong.
    """
    authority = site.offering.limits
    if authority == "waldur":
        return [], []  # membership_sync sets them
    decisions = decide(site, by_account(resources), state, authority)
    if not dry_run:
        note_left(site, decisions)
    writes = [told_write(site, d) for d in decisions.values() if d.to_tell is not None]
    told = [write for write in writes if not site.memory.get(_key(write))]
    if dry_run:
        return told, []
    failures = []
    attempts = concurrently(
        lambda w: tell_optional(site, w.call.value, lambda: send_write(site, w), w.about), told
    )
    for attempt in attempts:
        if isinstance(attempt.error, PermanentError):
            site.memory[_key(attempt.item)] = 1
        if attempt.error is not None:
            failures.append(f"{attempt.item.about}: {attempt.error}")
    return told, failures


def _key(write: Write) -> str:
    """By what is remembered that these very limits were refused."""
    return f"limits were refused: {write.uuid} {write}"


def _tell(site: Site, decisions: Sequence[LimitDecision]) -> tuple[list[LimitDecision], list[str]]:
    attempts = concurrently(lambda d: send_write(site, told_write(site, d, _BY_HAND)), decisions)
    told = [attempt.item for attempt in attempts if attempt.error is None]
    return told, [f"{a.item.found.id}: {a.error}" for a in attempts if a.error is not None]


def _set(site: Site, decisions: Sequence[LimitDecision]) -> tuple[list[LimitDecision], list[str]]:
    applied = apply_steps(site, [limit_step(decision) for decision in decisions])
    outcomes = list(zip(decisions, (outcome for _, outcome in applied), strict=True))
    done = [decision for decision, outcome in outcomes if outcome.error is None]
    return done, [str(outcome.error) for _, outcome in outcomes if outcome.error is not None]


def _line(site: Site, decision: LimitDecision) -> str:
    """Old and new value on the side that follows, and what the other side has."""
    name = decision.found.id
    if decision.to_tell is not None:
        return f"{name}  in Waldur: {told_write(site, decision)}"
    found = decision.found.limits
    changes = [
        f"limit {each.name} {amount_text(found.get(each.name)) or 'none'} -> "
        f"{amount_text(decision.to_set[each.name])} ({each.entitlement})"
        for each in decision.changed
    ]
    return f"{name}  on the account: {'; '.join(changes)}"
