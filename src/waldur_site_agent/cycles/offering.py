"""Looks whether the agent can see its offering and has a role there.

Waldur answers a token without rights with empty lists, which look like an offering where nothing
is to be done. So the agent looks at its start, and whenever a list comes back empty that had rows
before; an ordinary cycle costs no request more.
"""

from __future__ import annotations

from collections.abc import Sized

from waldur_site_agent.backends import CreateHomeDirectories
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.applying import apply_steps, members_served
from waldur_site_agent.cycles.partial_answers import readable
from waldur_site_agent.cycles.site import CommandOutcome, Site
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import User, WaldurOffering
from waldur_site_agent.planning.access import usable_usernames
from waldur_site_agent.planning.offering import (
    ComponentPlan,
    access_problem,
    component_differences,
    hidden_problem,
    plan_components,
)
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.waldur import AccessDeniedError, NotFoundError, Waldur


class OfferingAccessError(TemporaryError):
    """The offering cannot be served with this token.

    Temporary, because it says nothing about any order or resource: the agent looks again, and
    goes on once the token or the role was corrected.
    """


def check_offering_access(site: Site) -> User:
    """The user whose token this is, who can see the offering and has a role there.

    Raises:
        OfferingAccessError: it is not so; the text names the key to correct.
        TemporaryError: Waldur could not be asked.
    """
    user = site.waldur.whoami()
    try:
        offering = site.waldur.offering(site.offering.waldur_offering_uuid)
    except (NotFoundError, AccessDeniedError) as error:
        problem = hidden_problem(user, site.offering.waldur_offering_uuid)
        raise OfferingAccessError(problem) from error
    if problem := access_problem(user, offering):
        raise OfferingAccessError(problem)
    return user


def read_offering(site: Site) -> WaldurOffering:
    """The offering as Waldur has it now.

    Raises:
        OfferingAccessError: it is not shown to this token; the text names the key to correct.
        TemporaryError: Waldur could not be asked.
    """
    try:
        return site.waldur.offering(site.offering.waldur_offering_uuid)
    except (NotFoundError, AccessDeniedError) as error:
        problem = hidden_problem(site.waldur.whoami(), site.offering.waldur_offering_uuid)
        raise OfferingAccessError(problem) from error


def check_emptied_list(site: Site, what: str, rows: Sized) -> None:
    """Make sure that a list which had rows before is really empty now.

    Args:
        site: the offering at work.
        what: what the list holds, such as ``orders``.
        rows: what came back, of a list that is complete.

    Raises:
        OfferingAccessError: the list is empty because this token may not see it.
        TemporaryError: Waldur could not be asked.
    """
    if rows:
        site.memory.nonempty_lists.add(what)
    elif what in site.memory.nonempty_lists:
        check_offering_access(site)  # if this fails, the next cycle checks again
        site.memory.nonempty_lists.discard(what)


def load_components(
    offering: Offering, waldur: Waldur, *, dry_run: bool = False
) -> tuple[ComponentPlan, list[str]]:
    """Create and update components; return the plan and a line per change.

    Components that only Waldur has are reported and left alone.

    Raises:
        TemporaryError, PermanentError: Waldur could not be asked, or refused.
    """
    found = waldur.offering(offering.waldur_offering_uuid).components
    plan = plan_components(offering.components, found)
    by_type = {component.type: component for component in found}
    lines = []
    for component in plan.create:
        if not dry_run:
            waldur.create_component(offering.waldur_offering_uuid, component)
        lines.append(f"+ {component.type}  {component.name} in {component.measured_unit}")
    for component in plan.update:
        if not dry_run:
            waldur.update_component(offering.waldur_offering_uuid, component)
        differences = component_differences(component, by_type[component.type])
        lines.append(f"~ {component.type}  {'; '.join(differences)}")
    lines += [f"  {name}  unchanged" for name in plan.unchanged]
    lines += [f"? {name}  only in Waldur; left alone" for name in plan.only_in_waldur]
    return plan, lines


def create_missing_homes(site: Site, *, dry_run: bool = False) -> CommandOutcome:
    """Return who got a home directory, and what went wrong.

    Raises:
        TemporaryError: Waldur could not be asked.
    """
    if CreateHomeDirectories not in site.backend.supports:
        trouble = "the backend makes no home directories; see its backend_settings"
        return CommandOutcome(trouble=(trouble,))
    listing = site.waldur.offering_users(site.offering.waldur_offering_uuid)
    names = usable_usernames(readable(site, listing, "offering users")).values()
    homeless = tuple(sorted(site.backend.missing_home_directories(names)))
    if not homeless or dry_run:
        return CommandOutcome(homeless)
    made: list[str] = []
    troubles: list[str] = []
    for _, outcome in apply_steps(
        site, [Step(CreateHomeDirectories(homeless), "has no home directory")]
    ):
        if outcome.error is not None:
            troubles.append(str(outcome.error))
        else:
            made += members_served(outcome)
        troubles += [f"{left.name}: {left.error}" for left in outcome.skipped]
    return CommandOutcome(tuple(made), tuple(troubles))
