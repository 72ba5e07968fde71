"""Checks the budgets of an offering, and gives notice once for each threshold that is crossed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from waldur_site_agent.cycles.changes import send_write
from waldur_site_agent.cycles.partial_answers import write_optional
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.budget_notices import Budget, BudgetNotice
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import Resource, TeamMember, short_role
from waldur_site_agent.planning.budget_notices import (
    NOTED,
    BudgetChange,
    budget_changes,
    budgets_of,
    with_noted,
)
from waldur_site_agent.planning.plan import metadata_write

_NOT_NOTED = "no budget notices: sending them cannot be recorded in Waldur"


def check_budgets(
    site: Site, resources: Mapping[str, Resource]
) -> tuple[tuple[Budget, ...], tuple[str, ...]]:
    """The budgets of these resources, by account, and why notices could not be given.

    A notice is noted in the resource's ``backend_metadata`` before it is given, so that none is
    given twice; where it could not be given, the note is taken back, and the next pass tries again.
    """
    settings, channels = site.offering.budgets, site.budgets
    if settings is None or channels is None:
        return (), ()
    try:
        used = site.backend.consumption(resources)
    except SiteAgentError as error:
        return (), (f"budgets could not be checked: {error}",)
    budgets = budgets_of(resources, site.offering.components.values(), used)
    troubles = []
    try:
        channels.publish(budgets)
    except SiteAgentError as error:
        troubles.append(str(error))
    for change in budget_changes(resources, budgets, settings.warn_at_percent):
        if site.stopping():
            break
        try:
            _tell(site, change)
        except SiteAgentError as error:
            troubles.append(f"{change.resource.account}: budget notice not sent: {error}")
    return budgets, tuple(troubles)


def _tell(site: Site, change: BudgetChange) -> None:
    # read again: the note replaces all metadata, and other passes may have written some meanwhile
    resource = site.waldur.resource(change.resource.uuid)
    if not _note(site, resource, change.metadata(resource.backend_metadata), "budget"):
        return
    for notice in change.notices:
        _log(site, notice)
    if not change.notices or site.budgets is None:
        return
    try:
        people = _people(site, resource)
        for notice in change.notices:
            site.budgets.tell(notice, people)
    except SiteAgentError:
        now = site.waldur.resource(resource.uuid)
        before = with_noted(now.backend_metadata, change.resource.backend_metadata.get(NOTED))
        _note(site, now, before, "budget notice not sent yet")
        raise


def _people(site: Site, resource: Resource) -> list[TeamMember]:
    """The people of the project who are told, by role; servers spell roles in two ways."""
    roles = site.offering.budgets.notify_roles if site.offering.budgets is not None else ()
    team = site.waldur.team(resource.uuid) if roles else ()
    return [each for each in team if short_role(each.role) in roles]


def _note(site: Site, resource: Resource, metadata: Mapping[str, object], reason: str) -> bool:
    """Write metadata; return whether Waldur takes them at all."""
    write = metadata_write(resource, metadata, reason)
    if write_optional(site, write.call.value, partial(send_write, site, write), write.about):
        return True
    remedy = "give the agent's user the permission to set backend metadata"
    site.conditions.note(_NOT_NOTED, resource.account, resource=resource.account, remedy=remedy)
    return False


def _log(site: Site, notice: BudgetNotice) -> None:
    budget = notice.budget
    site.log.warning(
        "budget crossed a threshold",
        resource=budget.account,
        component=budget.component,
        percent=notice.percent,
        used=f"{budget.used:.6g}",
        limit=f"{budget.limit:.6g}",
        unit=budget.unit,
    )
