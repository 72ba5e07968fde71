"""Gives home directories to the offering's users who have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import CreateHomeDirectories
from waldur_site_agent.cycles.applying import apply_steps, members_served
from waldur_site_agent.cycles.report import CommandOutcome
from waldur_site_agent.cycles.unreadable import readable
from waldur_site_agent.planning.access import usable_usernames
from waldur_site_agent.planning.plan import Step

if TYPE_CHECKING:
    from waldur_site_agent.cycles.site import Site


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
        troubles += [f"{left.name}: {left.error}" for left in outcome.left_out]
    return CommandOutcome(tuple(made), tuple(troubles))
