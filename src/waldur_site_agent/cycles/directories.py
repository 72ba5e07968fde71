"""Creates missing home directories, and compares home and project directories with the settings."""

from __future__ import annotations

from collections.abc import Iterable

from waldur_site_agent.backends import CreateHomeDirectories, CreateProjectDirectory
from waldur_site_agent.cycles.changes import apply_steps, members_served
from waldur_site_agent.cycles.partial_answers import readable
from waldur_site_agent.cycles.site import CommandOutcome, Site
from waldur_site_agent.model.marketplace import ResourceState
from waldur_site_agent.planning.membership import usable_usernames
from waldur_site_agent.planning.plan import Step

_SHOWN = 5


def create_missing_homes(site: Site, *, dry_run: bool = False) -> CommandOutcome:
    """Create the home directories of offering users that have none.

    Raises:
        TemporaryError: Waldur could not be reached.
    """
    if CreateHomeDirectories not in site.backend.supports:
        trouble = "the backend does not create home directories; see its backend_settings"
        return CommandOutcome(trouble=(trouble,))
    names = _usernames(site)
    homeless = site.backend.missing_home_directories(names) | site.backend.unset_quotas(names)
    if not homeless or dry_run:
        return CommandOutcome(tuple(sorted(homeless)))
    made: list[str] = []
    troubles: list[str] = []
    action = CreateHomeDirectories(tuple(sorted(homeless)))
    for _, outcome in apply_steps(site, [Step(action, "has no home directory")]):
        if outcome.error is not None:
            troubles.append(str(outcome.error))
        else:
            made += members_served(outcome)
        troubles += [f"{left.name}: {left.error}" for left in outcome.skipped]
    return CommandOutcome(tuple(made), tuple(troubles))


def check_directories(
    site: Site, *, repair: bool = False, replace_quotas: bool = False
) -> CommandOutcome:
    """Compare the directories of an offering with the settings, and with ``repair`` correct them.

    Raises:
        TemporaryError: Waldur could not be read.
    """
    if not {CreateHomeDirectories, CreateProjectDirectory} & site.backend.supports:
        nothing = (
            "the backend makes no directories; see enable_user_homedir_account_creation and "
            "project_directory in its backend_settings"
        )
        return CommandOutcome(trouble=(nothing,))
    users = _usernames(site)
    made = create_missing_homes(site) if repair and _makes_homes(site) else CommandOutcome()
    reports = site.backend.check_directories(
        _accounts(site), users, repair=repair, replace_quotas=replace_quotas
    )
    done = [f"{name}: home directory created" for name in made.done]
    trouble = list(made.trouble)
    count = 0
    for report in reports:
        count += 1
        done += [f"{report.path}: repaired {what}" for what in report.repaired]
        trouble += [f"{report.path}: {what}" for what in report.differences]
    remark = f"{count} directories checked" if count else "there is no directory to check"
    return CommandOutcome(tuple(done), tuple(trouble), (remark,))


def unfinished_directories(
    site: Site, users: Iterable[str], accounts: Iterable[str]
) -> tuple[str, ...]:
    """What a pass has left incomplete, in words, for the health of the process."""
    found = (
        ("home directories have no quota yet", site.backend.unset_quotas(users)),
        ("project directories are not complete", site.backend.unfinished_directories(accounts)),
    )
    return tuple(f"{len(names)} {what}: {_shown(names)}" for what, names in found if names)


def _shown(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _makes_homes(site: Site) -> bool:
    return CreateHomeDirectories in site.backend.supports


def _usernames(site: Site) -> frozenset[str]:
    listing = site.waldur.offering_users(site.offering.waldur_offering_uuid)
    users = readable(site, listing, "offering users")
    return frozenset(usable_usernames(users, with_consent=site.offering.require_consent).values())


def _accounts(site: Site) -> frozenset[str]:
    listing = site.waldur.resources(site.offering.waldur_offering_uuid, ResourceState.WITHOUT_ORDER)
    return frozenset(
        resource.account for resource in readable(site, listing, "resources") if resource.account
    )
