"""Tells Waldur how the accounts stand; only differences cost a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.cycles.optional_calls import ask_optional, is_unavailable, tell_optional
from waldur_site_agent.cycles.writing import send_write
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.planning.feedback import Feedback, feedback_on, feedback_writes
from waldur_site_agent.waldur import AbsentOperationError, concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.planning.membership import AccountPlan, MembershipPlan
    from waldur_site_agent.planning.writes import Write


def tell_waldur(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[str]:
    """Report metadata, limits, health and the time of the sync; return what went wrong.

    Args:
        site: the offering at work.
        membership: the plan that was carried out.
        state: the backend as it is after that.
        broken: accounts on which something failed or was refused; they do not count as synced.
    """
    news = _news(site, membership, state, broken)
    attempts = concurrently(lambda feedback: _send(site, feedback), news)
    return [
        f"{attempt.item.resource.backend_id}: {attempt.error}"
        for attempt in attempts
        if attempt.error is not None
    ]


def foresee_feedback(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[Write]:
    """What :func:`tell_waldur` would write; nothing is sent."""
    return [
        write
        for feedback in _news(site, membership, state, broken)
        for write in feedback_writes(feedback, site.offering.components)
    ]


def _news(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[Feedback]:
    news = [
        feedback
        for account in membership.accounts
        for feedback in _feedback(site, account, state, broken)
    ]
    if any(feedback.limits for feedback in news) and limits_are_waldurs(site):
        news = [_without_limits(feedback) for feedback in news]
    return [feedback for feedback in news if feedback]


def accounts_with_news(
    site: Site, accounts: Iterable[AccountPlan], state: BackendState
) -> frozenset[str]:
    """The accounts of whose resources something would be written over in Waldur now.

    What was refused once is not among it, nor are limits that a policy of Waldur owns.
    """
    news = {plan.wanted.id: _feedback(site, plan, state, ()) for plan in accounts}
    differing = [feedback for told in news.values() for feedback in told]
    tells_limits = (
        any(feedback.limits for feedback in differing)
        and not is_unavailable(site, "set_limits")
        and not limits_are_waldurs(site)
    )
    tells_metadata = not is_unavailable(site, "set_backend_metadata")
    tells_state = not is_unavailable(site, "set_as_ok")
    return frozenset(
        name
        for name, told in news.items()
        if any(
            (tells_metadata and feedback.metadata is not None)
            or (tells_limits and feedback.limits is not None)
            or (tells_state and feedback.set_ok)
            for feedback in told
        )
    )


def _feedback(
    site: Site, account: AccountPlan, state: BackendState, broken: Collection[str]
) -> list[Feedback]:
    found = state.resources.get(account.wanted.id)
    if found is None:
        return []
    works = account.wanted.id not in broken and not account.wanted.trouble
    shared = len(account.wanted.resources) > 1
    news = [
        feedback_on(
            resource,
            found,
            site.offering.components,
            site.now(),
            works=works,
            wanted=account.wanted.access,
            limited=_limited(account, works=works),
            agree=site.backend.limits_agree,
        )
        for resource in account.wanted.resources
    ]
    # the limits of a shared account are the sum of nobody knows what
    return [_without_limits(feedback) for feedback in news] if shared else news


def _limited(account: AccountPlan, *, works: bool) -> frozenset[str]:
    """Whose limits are the agent's now; it forgets a member only when the limit is really gone."""
    wanted = account.wanted
    if wanted.member_limits is None or not works:
        return wanted.limited | frozenset(wanted.member_limits or ())
    return frozenset(name for name, limits in wanted.member_limits.items() if limits)


def _without_limits(feedback: Feedback) -> Feedback:
    return Feedback(
        resource=feedback.resource,
        metadata=feedback.metadata,
        set_ok=feedback.set_ok,
        refresh_sync=feedback.refresh_sync,
    )


def limits_are_waldurs(site: Site) -> bool:
    """Whether a periodic policy of Waldur owns the limits; then none are reported back."""
    uuid = site.offering.waldur_offering_uuid
    try:
        return bool(
            ask_optional(
                site, "periodic_policies", lambda: site.waldur.periodic_policies(uuid)
            ).items
        )
    except AbsentOperationError:
        return False
    except SiteAgentError as error:
        reason = str(error)
        site.conditions.note("limits not reported: policies not read", "policies", reason=reason)
        return True


def _send(site: Site, feedback: Feedback) -> None:
    for write in feedback_writes(feedback, site.offering.components):
        _optionally(site, write)


def _optionally(site: Site, write: Write) -> None:
    """Send what the token may not be allowed to send: the memberships matter more."""
    tell_optional(site, write.call.value, lambda: send_write(site, write), write.about)
