"""Tells Waldur how the accounts stand; only differences cost a request."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.optional_calls import is_unavailable, tell_optional
from waldur_site_agent.cycles.resource_limits import told_write
from waldur_site_agent.cycles.writing import send_write
from waldur_site_agent.planning.feedback import feedback_on, feedback_writes
from waldur_site_agent.waldur import concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.planning.feedback import Feedback
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
    groups = _writes(site, membership, state, broken)
    attempts = concurrently(lambda group: _send(site, group), groups)
    return [
        f"{attempt.item[0].about}: {attempt.error}"
        for attempt in attempts
        if attempt.error is not None
    ]


def foresee_feedback(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[Write]:
    """What :func:`tell_waldur` would write; nothing is sent."""
    return [write for group in _writes(site, membership, state, broken) for write in group]


def _writes(
    site: Site, membership: MembershipPlan, state: BackendState, broken: Collection[str]
) -> list[tuple[Write, ...]]:
    """The writes about each resource, in the order in which they are sent."""
    groups: list[tuple[Write, ...]] = []
    for account in membership.accounts:
        told: tuple[Write, ...] = ()
        if account.limits is not None and account.limits.to_tell is not None:
            told = (told_write(site, account.limits),)  # never where several resources share it
        news = _feedback(site, account, state, broken)
        first, *others = [feedback_writes(feedback) for feedback in news] or [()]
        groups += [(*first, *told), *others]
    return [group for group in groups if group]


def accounts_with_news(
    site: Site, accounts: Iterable[AccountPlan], state: BackendState
) -> frozenset[str]:
    """The accounts of whose resources something would be written over in Waldur now.

    What was refused once is not among it; limits are confirmed by themselves.
    """
    news = {plan.wanted.id: _feedback(site, plan, state, ()) for plan in accounts}
    tells_metadata = not is_unavailable(site, "set_backend_metadata")
    tells_state = not is_unavailable(site, "set_as_ok")
    return frozenset(
        name
        for name, told in news.items()
        if any(
            (tells_metadata and feedback.metadata is not None) or (tells_state and feedback.set_ok)
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
    """Whose limits are the agent's now; it forgets a member only when the limit is really gone."""
    wanted = account.wanted
    if wanted.member_limits is None or not works:
        return wanted.limited | frozenset(wanted.member_limits or ())
    return frozenset(name for name, limits in wanted.member_limits.items() if limits)


def _send(site: Site, writes: Sequence[Write]) -> None:
    """Send what the token may not be allowed to send: the memberships matter more."""
    for write in writes:
        tell_optional(site, write.call.value, partial(send_write, site, write), write.about)
