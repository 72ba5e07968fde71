"""Parts of membership_sync as commands of their own: home directories, and limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import click
import structlog
from structlog.typing import FilteringBoundLogger

from waldur_site_agent.backends import Check, CheckStatus
from waldur_site_agent.backends.plugins import UsernameRegistry
from waldur_site_agent.cli.plan import on_one_line
from waldur_site_agent.cli.run import offering_option, open_journal
from waldur_site_agent.cli.start import DONE, FAILED, Broken, Start, config_option, load_or_exit
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.importing import importable
from waldur_site_agent.cycles.limits import sync_resource_limits
from waldur_site_agent.cycles.offering import create_missing_homes, load_components
from waldur_site_agent.cycles.site import CommandOutcome
from waldur_site_agent.cycles.usernames import (
    GivenUsernames,
    UsernameChange,
    UsernameResult,
    UsernamesReport,
    sync_offering_users,
)
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.planning.importing import ImportPlan, Offer
from waldur_site_agent.planning.writes import Write
from waldur_site_agent.service.diagnosis import (
    diagnose_backends,
    diagnose_broker,
    diagnose_limits,
    diagnose_machine,
    diagnose_waldur,
)
from waldur_site_agent.service.journal import Journal
from waldur_site_agent.service.modes import MEMBERSHIP_SYNC
from waldur_site_agent.service.session import Runtime, connect, open_site
from waldur_site_agent.waldur import Waldur

Work = Callable[..., CommandOutcome]


def create_homes(path: Path, wanted: Sequence[str], *, dry_run: bool) -> int:
    """Make missing home directories; return the exit code."""
    return _for_every_offering(path, wanted, create_missing_homes, dry_run=dry_run)


def sync_limits(
    path: Path, wanted: Sequence[str], *, to: Literal["waldur", "backend"], dry_run: bool
) -> int:
    """Bring the limits of one side to the other; return the exit code."""
    work = partial(sync_resource_limits, follows="backend" if to == "waldur" else "waldur")
    return _for_every_offering(path, wanted, work, dry_run=dry_run)


def _for_every_offering(path: Path, wanted: Sequence[str], work: Work, *, dry_run: bool) -> int:
    mode = MEMBERSHIP_SYNC
    start = load_or_exit(path, wanted=wanted, jobs=[mode.job], quiet=True)
    runtime = Runtime(
        configuration=start.configuration,
        source=start.source,
        registry=start.registry,
        journal=open_journal(start, dry_run=dry_run),
    )
    code = DONE
    for offering in start.offerings:
        click.echo(f"{offering.name}:")
        if not offering.backend_for(mode.job):
            click.echo(f"  no {mode.job.value}; left alone")
            continue
        try:
            with open_site(runtime, offering, mode, lambda: False) as site:
                outcome = work(site, dry_run=dry_run)
        except SiteAgentError as error:
            outcome = CommandOutcome(trouble=(str(error),))
        _print(outcome, dry_run=dry_run)
        code = FAILED if outcome.trouble else code
    return start.exit_code(code)


def _print(outcome: CommandOutcome, *, dry_run: bool) -> None:
    sign = "would be done: " if dry_run else ""
    for line in outcome.done or ["nothing to do"] * (not outcome.trouble):
        click.echo(on_one_line(f"  {sign if outcome.done else ''}{line}"))
    for line in outcome.remarks:
        click.echo(on_one_line(f"  {line}"))
    for line in outcome.trouble:
        click.echo(on_one_line(f"  ! {line}"))


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


_COLUMN = 14


@dataclass(frozen=True, slots=True)
class _Desk:
    """What usernames need of a site, without a backend."""

    waldur: Waldur
    log: FilteringBoundLogger
    record_write: Callable[[Write, SiteAgentError | None], None]
    stopping: Callable[[], bool] = bool
    given: GivenUsernames = field(default_factory=GivenUsernames)


def sync_users(path: Path, wanted: Sequence[str], *, dry_run: bool) -> int:
    """Do it for every offering and print a line per person; return the exit code."""
    start = load_or_exit(path, wanted=wanted, usernames=True, quiet=True)
    registry = UsernameRegistry()
    journal = open_journal(start, dry_run=dry_run)
    code = DONE
    for offering in start.offerings:
        click.echo(f"{offering.name}:")
        try:
            report = _sync(offering, registry, journal, dry_run=dry_run)
        except SiteAgentError as error:
            click.echo(f"  ! {error}")
            code = FAILED
            continue
        for line in _username_lines(report):
            click.echo(f"  {line}")
        code = FAILED if report.failed else code
    return start.exit_code(code)


def _sync(
    offering: Offering, registry: UsernameRegistry, journal: Journal, *, dry_run: bool
) -> UsernamesReport:
    record = journal.recorder_of_writes(offering.name, "users_sync")
    log = structlog.get_logger().bind(offering=offering.name)
    with connect(offering, "users_sync") as waldur, closing(registry.open(offering)) as backend:
        return sync_offering_users(
            _Desk(waldur, log, record), offering.waldur_offering_uuid, backend, dry_run=dry_run
        )


def _username_lines(report: UsernamesReport) -> Iterator[str]:
    if report.policy_of_others:
        yield f'Waldur makes the usernames here (policy "{report.policy_of_others}")'
    elif not report.changes:
        yield "No changes."
    for change in report.changes:
        yield _line(change)
    for name, people in report.duplicates.items():
        who = ", ".join(user.user_username or str(user.user_uuid) for user in people)
        yield f"! {name:<{_COLUMN}} is the username of several people in Waldur: {who}"


def _line(change: UsernameChange) -> str:
    person = change.user.user_username or str(change.user.user_uuid)
    sign = "~" if change.result in (UsernameResult.DONE, UsernameResult.PLANNED) else "!"
    return f"{sign} {person:<{_COLUMN}} {change.text}"


_ACCOUNT_COLUMN = 24


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
            click.echo("\n".join([f"{name}:", *_import_lines(plan)]))
    sys.exit(start.exit_code(code))


def _plan(start: Start, offering: Offering) -> ImportPlan:
    runtime = Runtime(
        configuration=start.configuration, source=start.source, registry=start.registry
    )
    with open_site(runtime, offering, MEMBERSHIP_SYNC, lambda: False) as site:
        return importable(site)


def _import_lines(plan: ImportPlan) -> Iterator[str]:
    for offer in plan.offers:
        limits = f", {text}" if (text := _limits(offer)) else ""
        project = f"{offer.project.slug} ({_printable(offer.project.name)})"
        yield f"  + {offer.account:<{_ACCOUNT_COLUMN}} project {project}{limits}"
    if not plan.offers:
        yield "  Nothing to offer."
    for reason, number in plan.skipped.items():
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
        "left_out": dict(plan.skipped),
    }


_WORDS = {CheckStatus.OK: "ok", CheckStatus.WARNING: "WARNING", CheckStatus.FAILED: "FAILED"}
_COLOURS = {CheckStatus.OK: "green", CheckStatus.WARNING: "yellow", CheckStatus.FAILED: "red"}


@dataclass(frozen=True, slots=True)
class _Part:
    """Checks about one thing; made one by one, as somebody asks for the next."""

    name: str
    checks: Iterable[Check]


def diagnose_and_print(
    path: Path, wanted: Sequence[str], output: str = "text", *, login: bool = False
) -> int:
    """Make all checks of the chosen offerings; return the exit code."""
    start = load_or_exit(path, wanted=wanted, quiet=True)
    parts = [_Part("this machine", diagnose_machine(start.configuration, start.source))]
    parts += [_Part(o.name, _checks(start, o, login=login)) for o in start.offerings]
    parts += [_Part(broken.offering, [_unusable(broken)]) for broken in start.broken]
    if output == "json":
        verdicts = _print_json(path, parts)
    else:
        click.echo(f"configuration: {path} is well-formed, {len(start.offerings)} offering(s)")
        verdicts = _print_text(parts)
    return FAILED if CheckStatus.FAILED in verdicts else DONE


def _unusable(broken: Broken) -> Check:
    return Check(
        name="configuration",
        verdict=CheckStatus.FAILED,
        detail=broken.reason,
        remedy="correct the file; no other check of this offering was made",
    )


def _checks(start: Start, offering: Offering, *, login: bool) -> Iterator[Check]:
    failed = False
    for check in chain(
        diagnose_waldur(offering), diagnose_backends(offering, start.source, start.registry)
    ):
        failed = failed or check.verdict is CheckStatus.FAILED
        yield check
    if not failed:  # what could not be read was said above
        yield from diagnose_limits(offering, start.source, start.registry)
    yield from diagnose_broker(offering, login=login)


def _print_json(path: Path, parts: Iterable[_Part]) -> set[CheckStatus]:
    verdicts: set[CheckStatus] = set()
    found: list[dict[str, Any]] = []
    for part in parts:
        checks = list(part.checks)
        verdicts |= {check.verdict for check in checks}
        found.append({"name": part.name, "checks": [_plain(check) for check in checks]})
    machine, *offerings = found
    failed = CheckStatus.FAILED in verdicts
    report = {
        "configuration": str(path),
        "failed": failed,
        "machine": machine["checks"],
        "offerings": offerings,
    }
    click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    return verdicts


def _plain(check: Check) -> dict[str, str]:
    return {
        "name": check.name,
        "verdict": check.verdict.value,
        "detail": check.detail,
        "remedy": check.remedy,
    }


def _print_text(parts: Iterable[_Part]) -> set[CheckStatus]:
    verdicts = set()
    for part in parts:
        click.echo(f"\n{part.name}")
        for check in part.checks:
            verdicts.add(check.verdict)
            word = click.style(f"{_WORDS[check.verdict]:<8}", fg=_COLOURS[check.verdict])
            click.echo(f"  {word} {check.name}: {check.detail}".rstrip(": "))
            if check.remedy and check.verdict is not CheckStatus.OK:
                click.echo(f"           -> {check.remedy}")
    return verdicts
