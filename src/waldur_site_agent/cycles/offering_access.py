"""Looks whether the agent can see its offering and has a role there.

Waldur answers a token without rights with empty lists, which look like an offering where nothing
is to be done. So the agent looks at its start, and whenever a list comes back empty that had rows
before; an ordinary cycle costs no request more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.planning.offering_access import access_problem, hidden_problem
from waldur_site_agent.waldur import AccessDeniedError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sized

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.offerings import WaldurOffering
    from waldur_site_agent.model.people import User


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
    had_rows = f"{what} were listed"
    if rows:
        site.memory[had_rows] = 1
    elif site.memory.get(had_rows):
        check_offering_access(site)  # on failure the note stays, and the next cycle looks again
        site.memory[had_rows] = 0
