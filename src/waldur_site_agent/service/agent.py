"""One pass over an offering, by itself or as a cycle of the service."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.config import ConfigurationError
from waldur_site_agent.cycles.offering_access import check_offering_access
from waldur_site_agent.cycles.report import CycleReport
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.sessions import only_copy, open_site
from waldur_site_agent.service.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent.config import Offering
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.service.modes import Mode
    from waldur_site_agent.service.sessions import Situation

_SILENT_TOKEN_SHARE = 0.5


def run_once(
    situation: Situation,
    offerings: Sequence[Offering],
    mode: Mode,
    *,
    dry_run: bool = False,
    stop: Stop | None = None,
) -> list[CycleReport]:
    """One cycle for each offering, one after the other; trouble with one stops no other."""
    stop = stop or Stop()
    return [
        _offering_once(situation, offering, mode, dry_run=dry_run, stop=stop)
        for offering in offerings
    ]


def _offering_once(
    situation: Situation, offering: Offering, mode: Mode, *, dry_run: bool, stop: Stop
) -> CycleReport:
    log = structlog.get_logger().bind(offering=offering.name, mode=mode.name)
    if stop.requested():
        reason = "the agent was asked to stop before its turn came"
        log.warning("not started", reason=reason)
        return CycleReport(offering=offering.name, trouble=reason)
    copies = nullcontext() if dry_run else only_copy(offering, mode, 0)
    try:
        with copies, open_site(situation, offering, mode, stop.requested, stop.pause) as site:
            greet(site, mode)
            if not dry_run:
                mode.start(site)
            return run_cycle(site, mode, dry_run=dry_run)
    except (SiteAgentError, ConfigurationError) as error:
        if not dry_run:  # a dry run prints the reason in place of the plan
            log.error("not started", reason=str(error))
        return CycleReport(offering=offering.name, trouble=str(error))
    except Exception as error:  # a bug, often a plugin's: the other offerings have their turn
        log.exception("not started because of a defect in the agent or a plugin")
        return CycleReport(offering=offering.name, trouble=_defect(error))


def greet(site: Site, mode: Mode) -> None:
    """Make sure that the token serves the offering, and warn of one that will die of silence.

    Raises:
        TemporaryError: the token does not, or Waldur could not be asked.
    """
    user = check_offering_access(site)
    site.log.info("connected", waldur=site.waldur.base_url, user=user.username)
    if user.token_lifetime and mode.period_seconds() > user.token_lifetime * _SILENT_TOKEN_SHARE:
        site.log.warning(
            "the token expires when it is not used for a while",
            token_lifetime_seconds=user.token_lifetime,
            remedy="set the token lifetime of this user to none in Waldur",
        )


def run_cycle(
    site: Site, mode: Mode, *, dry_run: bool = False, complete: bool = True
) -> CycleReport:
    """One pass that never raises: what went wrong is in the report and in the log.

    ``complete`` says whether it looks at the whole offering, and not at some scopes only.
    """
    began, requests, commands = time.monotonic(), site.waldur.requests_made, _commands(site)
    site.watch.cycle_began()
    try:
        report = mode.cycle(site, dry_run=dry_run)
    except SiteAgentError as error:
        if not dry_run:  # a dry run prints the reason in place of the plan
            site.log.warning("cycle cut short; tried again next time", reason=str(error))
        report = CycleReport(offering=site.offering.name, trouble=str(error))
    except Exception as error:  # a bug: it must not end a service that runs for months
        site.log.exception("cycle failed because of a defect in the agent or a plugin")
        report = CycleReport(offering=site.offering.name, trouble=_defect(error))
    report = replace(
        report,
        requests=site.waldur.requests_made - requests,
        commands=_commands(site) - commands,
    )
    is_whole = complete and not report.trouble
    site.conditions.settle(site.log, site.now(), complete=is_whole)
    site.watch.cycle_ended(report, time.monotonic() - began)
    site.log.debug(
        "cycle ended",
        seconds=round(time.monotonic() - began, 2),
        requests=report.requests,
        commands=report.commands,
    )
    return report


def _commands(site: Site) -> int:
    return sum(site.backend.commands_run().values())


def _defect(error: Exception) -> str:
    return f"a defect: {type(error).__name__}: {error}"
