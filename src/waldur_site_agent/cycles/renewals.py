"""Renewals of prepaid resources on servers that set the new end date late, or never.

Until the server shows the new end date, a note in the resource's ``backend_metadata`` keeps
membership passes from lowering the limit to the months that were paid before.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from waldur_site_agent.cycles.changes import send_write
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import SiteAgentError, TemporaryError
from waldur_site_agent.planning.orders import OrderPlan, renewal_note
from waldur_site_agent.waldur import concurrently


def note_renewals(
    site: Site, plans: Iterable[OrderPlan], errors: dict[UUID, SiteAgentError]
) -> None:
    """Note the new end dates that the server does not show yet, before the orders are done.

    An order whose note is refused waits: a later pass would lower what was paid for.
    """
    unnoted = [
        (plan, write)
        for plan in plans
        if plan.problem is None and plan.order.uuid not in errors
        if (write := renewal_note(plan)) is not None
    ]
    for attempt in concurrently(lambda pair: send_write(site, pair[1]), unnoted):
        if attempt.error is not None:
            plan, _ = attempt.item
            errors[plan.order.uuid] = TemporaryError(
                f"{plan.backend_id}: renewed, but the new end date could not be noted in the "
                f"backend_metadata of the resource: {attempt.error}"
            )


def warn_of_missing_end_dates(site: Site, plans: Iterable[OrderPlan]) -> None:
    """Name the resources whose renewal is done and whose end date is still the old one.

    Waldur ends them on that day, although they were renewed.
    """
    renewed = [plan for plan in plans if renewal_note(plan) is not None]
    attempts = concurrently(lambda plan: site.waldur.resource(plan.context.resource.uuid), renewed)
    for attempt in attempts:
        until, now = attempt.item.order.renewed_until, attempt.value
        if now is not None and until is not None and (now.end_date is None or now.end_date < until):
            site.conditions.note(
                "renewal done, but Waldur keeps the old end date",
                now.account,
                resource=now.account,
                end_date=str(now.end_date or "none"),
                renewed_until=str(until),
                remedy="set the end date of the resource in Waldur, which ends it otherwise",
            )
