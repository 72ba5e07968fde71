"""Reports the state of accounts to Waldur: metadata, limits, health, and missing accounts.

Only differences cost a request. What the token may not report is skipped; memberships matter more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from waldur_site_agent.backends import BackendState
from waldur_site_agent.cycles.changes import send_write
from waldur_site_agent.cycles.limits import reported_limits_write
from waldur_site_agent.cycles.partial_answers import is_unavailable, write_optional
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import Resource, ResourceState
from waldur_site_agent.planning.membership import (
    AccountPlan,
    Feedback,
    MembershipPlan,
    feedback_on,
    feedback_writes,
)
from waldur_site_agent.planning.plan import Write, erred_write
from waldur_site_agent.waldur import NotFoundError, concurrently


def report_to_waldur(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[str]:
    """Report metadata, limits, health and the time of the sync; return the errors.

    Args:
        site: the offering at work.
        membership: the plan that was applied.
        state: the backend afterwards.
        broken: accounts with failed or refused actions; they do not count as synced.
    """
    groups = _writes(site, membership, state, broken)
    attempts = concurrently(lambda group: _send(site, group), groups)
    return [
        f"{attempt.item[0].about}: {attempt.error}"
        for attempt in attempts
        if attempt.error is not None
    ]


def preview_feedback(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[Write]:
    """What :func:`report_to_waldur` would write; nothing is sent."""
    return [write for group in _writes(site, membership, state, broken) for write in group]


def _writes(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[tuple[Write, ...]]:
    """The writes for each resource, in sending order."""
    groups: list[tuple[Write, ...]] = []
    for account in membership.accounts:
        limits_report: tuple[Write, ...] = ()
        if account.limits is not None and account.limits.to_report is not None:
            # an account with such a decision has one resource only
            limits_report = (reported_limits_write(site, account.limits),)
        found = _feedback(site, account, state, broken)
        first, *others = [feedback_writes(feedback) for feedback in found] or [()]
        groups += [(*first, *limits_report), *others]
    return [group for group in groups if group]


def accounts_with_changes(
    site: Site, accounts: Iterable[AccountPlan], state: BackendState
) -> frozenset[str]:
    """The accounts for which Waldur's metadata or state would be overwritten now.

    Calls known to be unavailable do not count; limits are confirmed separately.
    """
    feedback_by_account = {plan.wanted.id: _feedback(site, plan, state, ()) for plan in accounts}
    can_set_metadata = not is_unavailable(site, "set_backend_metadata")
    can_set_ok = not is_unavailable(site, "set_as_ok")
    return frozenset(
        name
        for name, feedbacks in feedback_by_account.items()
        if any(
            (can_set_metadata and feedback.metadata is not None) or (can_set_ok and feedback.set_ok)
            for feedback in feedbacks
        )
    )


def _feedback(
    site: Site, account: AccountPlan, state: BackendState, broken: Collection[str]
) -> list[Feedback]:
    found = state.resources.get(account.wanted.id)
    if found is None:
        return []
    works = account.wanted.id not in broken and not account.wanted.trouble
    return [
        feedback_on(
            resource,
            found,
            site.now(),
            works=works,
            wanted=account.wanted.access,
            limited=_limited(account, works=works),
        )
        for resource in account.wanted.resources
    ]


def _limited(account: AccountPlan, *, works: bool) -> frozenset[str]:
    """The members whose limits the agent manages, until a limit has actually been removed."""
    wanted = account.wanted
    if wanted.member_limits is None or not works:
        return wanted.limited | frozenset(wanted.member_limits or ())
    return frozenset(name for name, limits in wanted.member_limits.items() if limits)


def _send(site: Site, writes: Sequence[Write]) -> None:
    """Send the writes, skipping those that are denied to this token."""
    for write in writes:
        write_optional(site, write.call.value, partial(send_write, site, write), write.about)


_ALWAYS_MARKED = 1


def mark_missing(site: Site, missing: Mapping[str, Sequence[Resource]], accounts: int) -> list[str]:
    """Mark resources Erred whose account is missing, confirmed by a second read.

    If more than half are missing, the agent is more likely connected to the wrong cluster, so
    nothing is marked.

    Args:
        site: the offering at work.
        missing: the resources, by missing account.
        accounts: the number of accounts that were looked for, including missing ones.

    Returns:
        What went wrong.
    """
    if not missing:
        return []
    if _too_many(missing, accounts):
        share = f"{len(missing)} of {accounts}"
        remedy = "nothing was marked in Waldur: check that this is the right cluster"
        return [f"{share} accounts are missing in the backend; {remedy}"]
    try:
        again = site.backend.observe(sorted(missing))
    except SiteAgentError as error:
        return [f"{len(missing)} accounts seem to be missing; second read failed: {error}"]
    failures = []
    for name, resources in missing.items():
        if name in again.resources:
            continue
        failures.append(f'{name}: the backend has no account "{name}"')
        for resource in resources:
            failures += _mark(site, resource, name)
    return failures


def preview_marks(missing: Mapping[str, Sequence[Resource]], accounts: int) -> list[Write]:
    """What :func:`mark_missing` would write if a second read confirmed it."""
    if _too_many(missing, accounts):
        return []
    return [
        erred_write(resource, _message(name))
        for name, resources in missing.items()
        for resource in resources
        if resource.state == ResourceState.OK
    ]


def _too_many(missing: Mapping[str, Sequence[Resource]], accounts: int) -> bool:
    return len(missing) > _ALWAYS_MARKED and len(missing) * 2 > accounts


def _message(name: str) -> str:
    return f'The account "{name}" no longer exists; ask the site to restore it.'


def _mark(site: Site, resource: Resource, name: str) -> list[str]:
    try:
        current = site.waldur.resource(resource.uuid)
        is_idle = current.state == ResourceState.OK and current.order_in_progress is None
        if is_idle and current.account == name:
            tell = partial(send_write, site, erred_write(current, _message(name)))
            if write_optional(site, "set_as_erred", tell, name):
                site.log.error("resource marked Erred: its account is missing", resource=name)
    except NotFoundError as error:
        site.conditions.note("could not mark missing account in Waldur", name, reason=str(error))
    except SiteAgentError as error:
        return [f"{name}: could not be marked Erred in Waldur: {error}"]
    return []
