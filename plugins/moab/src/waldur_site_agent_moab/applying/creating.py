"""Making accounts: containers first, then the resource's own with its fund and its deposit."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError
from waldur_site_agent_moab import commands
from waldur_site_agent_moab.applying.depositing import checked_deposit, set_deposit
from waldur_site_agent_moab.holdings import Account
from waldur_site_agent_moab.names import account_name

if TYPE_CHECKING:
    from waldur_site_agent.backends import CreateResource
    from waldur_site_agent.model.placement import Container, Placement
    from waldur_site_agent_moab.applying.work import Work
    from waldur_site_agent_moab.holdings import Mam

_log = logging.getLogger(__name__)


def create(work: Work, action: CreateResource) -> None:
    """Make what is missing of a resource, finishing what an interrupted run began."""
    placement = action.placement
    wanted = checked_deposit(placement.id, action.limits)
    missing = containers_to_make(placement, work.mam)
    own = work.mam.accounts.get(placement.id)
    if own is not None:
        refuse_foreign(placement, own)
    for container in missing:
        _make(work, container.id, container.title, container.organization)
    if own is None:
        _make(work, placement.id, placement.title, placement.organization)
    if not work.mam.funds_of(placement.id):
        work.write(commands.create_fund(placement.id))
        if wanted:
            work.mam = replace(work.mam, funds=work.client.funds())
    if wanted:
        set_deposit(work, placement.id, wanted)


def containers_to_make(placement: Placement, mam: Mam) -> list[Container]:
    """Return the accounts above that are missing, outermost first. Pure.

    Raises:
        PermanentError: a name is taken by an account that is not ours, or cannot be used.
    """
    for kind, name in placement.names():
        account_name(name, f"{kind} account")
    return [c for c in placement.containers if _is_missing(placement, c, mam)]


def refuse_foreign(placement: Placement, existing: Account) -> None:
    """Raise unless an account is the one that an interrupted run for this placement made.

    Raises:
        PermanentError: its organization differs: it belongs to somebody else.
    """
    if existing.organization != placement.organization:
        raise PermanentError(
            f'{placement.id}: cannot create: account "{existing.name}" exists with organization '
            f'"{existing.organization}", not "{placement.organization}"; rename it or set another '
            "allocation_prefix"
        )


def _is_missing(placement: Placement, container: Container, mam: Mam) -> bool:
    existing = mam.accounts.get(container.id)
    if existing is None:
        return True
    # earlier agents made project accounts that are their own organization
    if existing.organization not in (container.organization, container.id):
        raise PermanentError(
            f'{placement.id}: cannot create: the {container.kind} account "{container.id}" exists '
            f'with organization "{existing.organization}", not "{container.organization}", so it '
            f"was not made by this agent; rename it or set another {container.kind}_prefix"
        )
    return False


def _make(work: Work, name: str, title: str, organization: str) -> None:
    work.write(commands.create_account(name, title, organization))
    work.mam = work.mam.with_account(Account(name=name, organization=organization))
    _log.info("made the account %s", name)
