"""``components load``: the offering's components in Waldur follow the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from waldur_site_agent.cli.starting import DONE, FAILED, load_or_exit
from waldur_site_agent.cycles.components import load_components
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.sessions import connect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def load_into_waldur(path: Path, wanted: Sequence[str], *, dry_run: bool) -> int:
    """Do it for every offering and print a line per component; return the exit code."""
    start = load_or_exit(path, wanted=wanted, quiet=True)
    code = DONE
    for offering in start.offerings:
        click.echo(f"{offering.name}:")
        try:
            with connect(offering, "load_components") as waldur:
                _, lines = load_components(offering, waldur, dry_run=dry_run)
        except SiteAgentError as error:
            click.echo(f"  ! {error}")
            code = FAILED
            continue
        for line in lines or ["no components are configured"]:
            click.echo(f"  {line}")
    return start.exit_code(code)
