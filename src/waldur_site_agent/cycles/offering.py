"""Checks access to the offering, and loads its components.

Waldur returns empty lists to a token without permissions, which look like an offering with nothing
to do. So access is checked at start, and whenever a list comes back empty that had entries before.
"""

from __future__ import annotations

from collections.abc import Container, Sized

from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.site import CommandOutcome, Site
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.marketplace import User, WaldurComponent, WaldurOffering
from waldur_site_agent.planning.offering import (
    access_problem,
    component_differences,
    hidden_problem,
    plan_components,
)
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
    uuid = site.offering.waldur_offering_uuid
    try:
        offering = site.waldur.offering(uuid)
    except (NotFoundError, AccessDeniedError) as error:
        problem = hidden_problem(user, uuid, site.offering.login_key)
        raise OfferingAccessError(problem) from error
    if problem := access_problem(user, offering, site.offering.login_key):
        raise OfferingAccessError(problem)
    return user


def read_offering(site: Site) -> WaldurOffering:
    """Read the offering.

    Raises:
        OfferingAccessError: it is hidden from this token; the text names the key to correct.
        TemporaryError: Waldur could not be reached.
    """
    uuid = site.offering.waldur_offering_uuid
    try:
        return site.waldur.offering(uuid)
    except (NotFoundError, AccessDeniedError) as error:
        problem = hidden_problem(site.waldur.whoami(), uuid, site.offering.login_key)
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


def load_components(offering: Offering, waldur: Waldur, *, dry_run: bool) -> CommandOutcome:
    """Create and update components in Waldur; a component that Waldur refuses stops no other.

    Components that only Waldur has are reported and left unchanged. What was written is read
    back, because servers ignore fields that they do not have.

    Raises:
        TemporaryError, PermanentError: Waldur could not be reached, or hides the offering.
    """
    uuid = offering.waldur_offering_uuid
    found = waldur.offering(uuid).components
    plan = plan_components(offering.components, found)
    by_type = {component.type: component for component in found}
    done: list[str] = []
    trouble: list[str] = []
    for component in (*plan.create, *plan.update):
        existing = by_type.get(component.type)
        if dry_run:
            done.append(_component_line(component, existing))
            continue
        try:
            if existing is None:
                waldur.create_component(uuid, component)
            else:
                waldur.update_component(uuid, component)
        except PermanentError as error:
            trouble.append(f"{component.type}: {error}")
        else:
            done.append(_component_line(component, existing))
    if done and not dry_run:
        refused = {line.partition(":")[0] for line in trouble}
        trouble += _lines_of_lost_fields(offering, waldur, refused)
    unchanged = [f"  {name}  unchanged" for name in plan.unchanged]
    others = [f"? {name}  only in Waldur; left unchanged" for name in plan.only_in_waldur]
    return CommandOutcome(tuple(done), tuple(trouble), (*unchanged, *others))


def _component_line(component: WaldurComponent, existing: WaldurComponent | None) -> str:
    if existing is not None:
        return f"~ {component.type}  {'; '.join(component_differences(component, existing))}"
    fields = component_differences(component, WaldurComponent(type=component.type))
    return f"+ {component.type}  {'; '.join(fields)}".replace(": none -> ", ": ")


def _lines_of_lost_fields(offering: Offering, waldur: Waldur, refused: Container[str]) -> list[str]:
    """A line per component that still differs, though Waldur accepted what was written."""
    found = waldur.offering(offering.waldur_offering_uuid).components
    by_type = {component.type: component for component in found}
    left = plan_components(offering.components, found).update
    return [
        f"{component.type}: Waldur accepted the component but kept another value "
        f"({'; '.join(component_differences(component, by_type[component.type]))}); this server "
        "may be too old for the field: take it out of backend_components"
        for component in left
        if component.type not in refused
    ]
