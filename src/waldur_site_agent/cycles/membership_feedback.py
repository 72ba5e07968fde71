"""Tells Waldur how the accounts stand; only differences cost a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.cycles.optional_calls import ask_optional, tell_optional
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.planning.feedback import Feedback, feedback_on
from waldur_site_agent.waldur import AbsentOperationError, concurrently

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.membership import AccountPlan, MembershipPlan

_ROUTINE = "refresh_last_sync"
"""Sent for every resource again and again; it changes nothing."""


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
    news = [
        feedback
        for account in membership.accounts
        for feedback in _feedback(site, account, state, broken)
    ]
    if any(feedback.limits for feedback in news) and limits_are_waldurs(site):
        news = [_without_limits(feedback) for feedback in news]
    attempts = concurrently(lambda feedback: _send(site, feedback), [n for n in news if n])
    return [
        f"{attempt.item.resource.backend_id}: {attempt.error}"
        for attempt in attempts
        if attempt.error is not None
    ]


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
    resource, waldur = feedback.resource, site.waldur
    if feedback.set_ok:
        _optionally(site, resource, "set_as_ok", lambda: waldur.set_as_ok(resource.uuid))
    if (metadata := feedback.metadata) is not None:
        _optionally(
            site,
            resource,
            "set_backend_metadata",
            lambda: waldur.set_backend_metadata(resource.uuid, metadata),
        )
    if (limits := feedback.limits) is not None:
        _optionally(site, resource, "set_limits", lambda: waldur.set_limits(resource.uuid, limits))
    if feedback.refresh_sync:
        _optionally(
            site,
            resource,
            "refresh_last_sync",
            lambda: waldur.refresh_last_sync(resource.uuid),
        )


def _optionally(site: Site, resource: Resource, call: str, send: Callable[[], None]) -> None:
    """Send what the token may not be allowed to send: the memberships matter more."""
    if tell_optional(site, call, send, resource.name):
        log = site.log.debug if call == _ROUTINE else site.log.info
        log("told Waldur", call=call, resource=resource.name)
