"""``import list``: what would be offered for import, and how much is left out for which reason."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from waldur_site_agent.cli.running import offering_option
from waldur_site_agent.cli.starting import DONE, FAILED, config_option, load_or_exit
from waldur_site_agent.cycles.importing import importable
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.modes import MEMBERSHIP_SYNC
from waldur_site_agent.service.sessions import Situation, open_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from waldur_site_agent.cli.starting import Start
    from waldur_site_agent.config import Offering
    from waldur_site_agent.planning.importing import ImportPlan, Offer

_COLUMN = 24


@click.group("import")
def import_group() -> None:
    """Accounts of the backend that Waldur does not know."""


@import_group.command("list")
@config_option
@offering_option
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for machines.",
)
def list_command(config_file: Path, offerings: tuple[str, ...], output: str) -> None:
    """Print what Waldur would be offered for import; change nothing.

    Exit codes: 0 done, 1 something could not be read, 2 usage or configuration error.
    """
    start = load_or_exit(config_file, wanted=offerings, jobs=[MEMBERSHIP_SYNC.job], quiet=True)
    code, plans = DONE, {}
    for offering in start.offerings:
        if not offering.backend_for(MEMBERSHIP_SYNC.job):
            continue
        try:
            plans[offering.name] = _plan(start, offering)
        except SiteAgentError as error:
            click.echo(f"{offering.name}: {error}", err=True)
            code = FAILED
    if output == "json":
        click.echo(json.dumps({name: _json(plan) for name, plan in plans.items()}, indent=2))
    else:
        for name, plan in plans.items():
            click.echo("\n".join([f"{name}:", *_lines(plan)]))
    sys.exit(start.exit_code(code))


def _plan(start: Start, offering: Offering) -> ImportPlan:
    situation = Situation(
        configuration=start.configuration, source=start.source, registry=start.registry
    )
    with open_site(situation, offering, MEMBERSHIP_SYNC, lambda: False) as site:
        return importable(site)


def _lines(plan: ImportPlan) -> Iterator[str]:
    for offer in plan.offers:
        limits = _limits(offer)
        project = f"{offer.project.slug} ({_printable(offer.project.name)})"
        yield f"  + {offer.account:<{_COLUMN}} project {project}{', ' if limits else ''}{limits}"
    if not plan.offers:
        yield "  Nothing to offer."
    for reason, number in plan.left_out.items():
        yield f"  {number} left out: they {reason}"


def _limits(offer: Offer) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in offer.limits.items())


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())


def _json(plan: ImportPlan) -> dict[str, object]:
    return {
        "offers": [
            {
                "account": offer.account,
                "project": str(offer.project.uuid),
                "limits": {name: str(amount) for name, amount in offer.limits.items()},
            }
            for offer in plan.offers
        ],
        "left_out": dict(plan.left_out),
    }
