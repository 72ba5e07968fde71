"""What accounts have used of their limits on TRES-minutes, as slurmctld adds up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from waldur_site_agent.backends import Consumption
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.client import SlurmClient
from waldur_site_agent_slurm.controller import Controller, Limits, parse_assoc_mgr

_RULE = "GrpTRESMins "
_ONE_USER = ("root",)
"""Whose associations are shown besides those of the accounts: without any, everybody's are."""


def read_consumption(
    client: SlurmClient, accounts: Iterable[str]
) -> Mapping[str, Mapping[str, Consumption]]:
    """What is used of ``GrpTRESMins``, by account and TRES, both in TRES-minutes.

    The limit is that of the account itself, or of a QOS with the account's name.

    Raises:
        TemporaryError: slurmctld did not answer.
    """
    found: dict[str, Mapping[str, Consumption]] = {}
    for portion in commands.chunks(set(accounts)):
        said = client.ask(commands.show_enforced(portion, _ONE_USER, portion, client.cluster))
        controller = parse_assoc_mgr(said)
        found |= {account: _of(account, controller) for account in portion}
    return {account: used for account, used in found.items() if used}


def _of(account: str, controller: Controller) -> dict[str, Consumption]:
    association, qos = controller.of_account(account), controller.qos.get(account)
    limits = [each.limits for each in (qos, association) if each is not None]
    return {tres: used for each in limits for tres, used in _consumed(each).items()}


def _consumed(limits: Limits) -> dict[str, Consumption]:
    return {
        key.removeprefix(_RULE): Consumption(limit.limit, limit.used)
        for key, limit in limits.items()
        if key.startswith(_RULE) and limit.limit is not None
    }
