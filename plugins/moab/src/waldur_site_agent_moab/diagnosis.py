"""Is the accounting manager there, and is it set up so that the agent can do its work?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from waldur_site_agent.backends import (
    Check,
    CheckStatus,
    Look,
    PermanentError,
    SiteAgentError,
    locking,
    make_checks,
)
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent_moab import commands
from waldur_site_agent_moab.accounts import DEPOSIT
from waldur_site_agent_moab.client import MamClient
from waldur_site_agent_moab.facts import Mam
from waldur_site_agent_moab.settings import MoabSettings

_MANAGER = "the accounting manager"


def diagnose(
    client: MamClient,
    settings: MoabSettings,
    components: Mapping[str, Component],
    lock_file: Path,
) -> Iterator[Check]:
    """Yield one check after the other; a check that cannot be made has failed."""
    yield _user()
    yield from _components(components)
    looks = (
        Look("lock file", lambda: _lock(lock_file)),
        Look("mam commands", lambda: _version(client)),
        Look("accounts", lambda: _accounts(client, settings), _MANAGER),
        Look("withdrawals", lambda: _withdrawals(client), _MANAGER),
    )
    yield from make_checks(looks, (SiteAgentError,))


def money_trouble(mam: Mam, settings: MoabSettings) -> Iterator[str]:
    """Name the accounts below projects whose money is not understood, with the remedy."""
    for name, account in sorted(mam.accounts.items()):
        above = mam.accounts.get(account.organization)
        is_resource = above is not None and above.key != name and above.organization in mam.accounts
        is_named_so = name.startswith(settings.allocation_prefix.lower())
        if not (is_resource and is_named_so) or mam.children(name):
            continue
        is_empty_project = not account.users and not mam.funds_of(name)
        if is_empty_project:
            continue
        try:
            trouble = mam.books_of(mam.fund_of(name)).trouble
        except PermanentError as error:
            yield str(error)
        else:
            if trouble:
                yield f"{name}: {trouble}"


def _user() -> Check:
    if os.geteuid() == 0:
        return Check(name="user", verdict=CheckStatus.OK, detail="root")
    return Check(
        name="user",
        verdict=CheckStatus.WARNING,
        detail=f"user number {os.geteuid()}, not root",
        remedy="run the agent as root, or as a user who is an administrator of the manager",
    )


def _components(components: Mapping[str, Component]) -> Iterator[Check]:
    for name in sorted(components.keys() - {DEPOSIT}):
        yield Check(
            name=f"component {name}",
            verdict=CheckStatus.WARNING,
            detail=f"is ignored: MOAB has no other component than {DEPOSIT}",
            remedy="take it out of backend_components",
        )
    deposit = components.get(DEPOSIT)
    if deposit is None:
        yield Check(
            name=f"component {DEPOSIT}",
            verdict=CheckStatus.FAILED,
            detail="is not in backend_components, so nothing is ever deposited",
            remedy=f"add {DEPOSIT} with accounting_type: limit",
        )
        return
    is_limit = deposit.rules.is_limited
    yield Check(
        name=f"component {DEPOSIT}",
        verdict=CheckStatus.OK if is_limit else CheckStatus.WARNING,
        detail=f"accounting_type: {deposit.accounting_type}",
        remedy="" if is_limit else "set accounting_type: limit, or orders deposit nothing",
    )


def _lock(path: Path) -> Iterator[Check]:
    locking.probe_lock(path)
    yield Check(name="lock file", verdict=CheckStatus.OK, detail=str(path))


def _version(client: MamClient) -> Iterator[Check]:
    """A version that cannot be told is no reason to stop: the lists tell what works."""
    try:
        said = " ".join(client.ask(commands.show_version()).split())
        yield Check(name="mam commands", verdict=CheckStatus.OK, detail=said)
    except SiteAgentError as error:
        yield Check(name="mam commands", verdict=CheckStatus.WARNING, detail=str(error))


def _accounts(client: MamClient, settings: MoabSettings) -> Iterator[Check]:
    mam = client.read()
    detail = f"{len(mam.accounts)} accounts, {len(mam.funds)} funds"
    yield Check(name="accounts", verdict=CheckStatus.OK, detail=detail)
    default = settings.default_account
    if default and default not in mam.accounts:
        yield Check(
            name="default_account",
            verdict=CheckStatus.WARNING,
            detail=f"{default!r} does not exist; customers are shown without an account above",
            remedy="take default_account out of backend_settings, or make the account",
        )
    for trouble in money_trouble(mam, settings):
        yield Check(name="funds", verdict=CheckStatus.WARNING, detail=trouble)


def _withdrawals(client: MamClient) -> Iterator[Check]:
    taken = client.withdrawals()
    detail = f"{len(taken)} funds with withdrawals"
    yield Check(name="withdrawals", verdict=CheckStatus.OK, detail=detail)
