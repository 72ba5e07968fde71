"""Checks access to the offering, loads its components, and creates missing home directories.

Waldur returns empty lists to a token without permissions, which look like an offering with nothing
to do. So access is checked at start, and whenever a list comes back empty that had entries before.
"""

from __future__ import annotations

from collections.abc import Sized

from waldur_site_agent.backends import CreateHomeDirectories
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.partial_answers import readable
from waldur_site_agent.cycles.site import CommandOutcome, Site, apply_steps, members_served
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import User, WaldurOffering
from waldur_site_agent.planning.membership import usable_usernames
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

    Temporary, because it says nothing about any order or resource: the agent retries, and
    continues once the token or the role was corrected.
    """


def check_offering_access(site: Site) -> User:
    """Check that the token's user can see the offering and has a role there; return the user.

    Raises:
        OfferingAccessError: access is missing; the text names the key to correct.
        TemporaryError: Waldur could not be reached.
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
    """Read the offering.

    Raises:
        OfferingAccessError: it is hidden from this token; the text names the key to correct.
        TemporaryError: Waldur could not be reached.
    """
    try:
        return site.waldur.offering(site.offering.waldur_offering_uuid)
    except (NotFoundError, AccessDeniedError) as error:
        problem = hidden_problem(site.waldur.whoami(), site.offering.waldur_offering_uuid)
        raise OfferingAccessError(problem) from error


def check_emptied_list(site: Site, what: str, rows: Sized) -> None:
    """Check access again if a list is empty that had entries before.

    Args:
        site: the offering at work.
        what: the kind of list, such as ``orders``.
        rows: the entries of the complete list.

    Raises:
        OfferingAccessError: the list is empty because this token may not see it.
        TemporaryError: Waldur could not be reached.
    """
    if rows:
        site.memory.nonempty_lists.add(what)
    elif what in site.memory.nonempty_lists:
        check_offering_access(site)  # if this fails, the next cycle checks again
        site.memory.nonempty_lists.discard(what)


def load_components(
    offering: Offering, waldur: Waldur, *, dry_run: bool = False
) -> tuple[ComponentPlan, list[str]]:
    """Create and update components in Waldur; return the plan and a line per component.

    Components that only Waldur has are reported and left unchanged.

    Raises:
        TemporaryError, PermanentError: Waldur could not be reached, or rejected a change.
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
    lines += [f"? {name}  only in Waldur; left unchanged" for name in plan.only_in_waldur]
    return plan, lines


def create_missing_homes(site: Site, *, dry_run: bool = False) -> CommandOutcome:
    """Create the home directories of offering users that have none.

    Raises:
        TemporaryError: Waldur could not be reached.
    """
    if CreateHomeDirectories not in site.backend.supports:
        trouble = "the backend does not create home directories; see its backend_settings"
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
