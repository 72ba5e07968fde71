"""Commands that do one job once: diagnosis, components, users, home directories, limits, import."""

from __future__ import annotations

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
from waldur_site_agent.cli.output import json_text, on_one_line, say, say_verdict
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    Broken,
    Start,
    colour_settings,
    config_option,
    dry_run_option,
    each_offering,
    load_or_exit,
    offering_option,
    output_option,
    runtime_of,
    runtime_or_exit,
)
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.directories import check_directories, create_missing_homes
from waldur_site_agent.cycles.importing import importable
from waldur_site_agent.cycles.limits import sync_resource_limits
from waldur_site_agent.cycles.offering import load_components
from waldur_site_agent.cycles.site import CommandOutcome, Site
from waldur_site_agent.cycles.usernames import (
    GivenUsernames,
    UsernameChange,
    UsernameResult,
    UsernamesReport,
    WriteJournal,
    sync_offering_users,
)
from waldur_site_agent.planning.importing import ImportPlan, Offer
from waldur_site_agent.service.diagnosis import (
    diagnose_backends,
    diagnose_broker,
    diagnose_limits,
    diagnose_machine,
    diagnose_settings,
    diagnose_waldur,
)
from waldur_site_agent.service.session import MEMBERSHIP_SYNC, connect, open_site
from waldur_site_agent.waldur import Waldur

_PERSON_COLUMN = 14
_ACCOUNT_COLUMN = 24


@click.command("load")
@config_option
@offering_option
@dry_run_option
def components_load(config_file: Path, offerings: tuple[str, ...], dry_run: bool) -> None:
    """Create or update the offering's components in Waldur from backend_components.

    With --dry-run, print each field with its old and new value, and change nothing. Exit codes:
    0 done, 1 Waldur refused a component or did not keep a value, 2 usage or configuration error.
    """
    start = load_or_exit(config_file, wanted=offerings, quiet=True)

    def load(offering: Offering) -> int:
        with connect(offering, "load_components") as waldur:
            outcome = load_components(offering, waldur, dry_run=dry_run)
        lines = [*outcome.done, *outcome.remarks, *(f"! {line}" for line in outcome.trouble)]
        for line in lines or ["no components are configured"]:
            say(on_one_line(f"  {line}"))
        return FAILED if outcome.trouble else DONE

    sys.exit(each_offering(start, load))


@click.command("create")
@config_option
@offering_option
@dry_run_option
def homedirs_create(config_file: Path, offerings: tuple[str, ...], dry_run: bool) -> None:
    """Create missing home directories of the offering's users."""
    sys.exit(_at_each_site(config_file, offerings, create_missing_homes, dry_run=dry_run))


@click.command("check")
@config_option
@offering_option
def directories_check(config_file: Path, offerings: tuple[str, ...]) -> None:
    """Compare home and project directories with the settings; change nothing.

    Looks at the homes of the offering's users and at the directories of its resources: whether they
    exist, owner, group, mode, access control list and quota. Exit codes: 0 as configured, 1 some
    differ or could not be read, 2 usage or configuration error.
    """

    def work(site: Site, *, dry_run: bool) -> CommandOutcome:  # noqa: ARG001 - changes nothing
        return check_directories(site)

    sys.exit(_at_each_site(config_file, offerings, work, dry_run=False))


@click.command("repair")
@click.option(
    "--replace-quotas",
    is_flag=True,
    help="Also change quotas that somebody has set otherwise, up or down.",
)
@config_option
@offering_option
@dry_run_option
def directories_repair(
    replace_quotas: bool, config_file: Path, offerings: tuple[str, ...], dry_run: bool
) -> None:
    """Create missing home and project directories, and correct those that differ.

    Quotas are set where there is none. Nothing is removed, and a directory that belongs to somebody
    else is left as it is. With --dry-run, print what "directories check" does. Exit codes: 0 all
    are as configured now, 1 some are not, 2 usage or configuration error.
    """

    def work(site: Site, *, dry_run: bool) -> CommandOutcome:
        return check_directories(site, repair=not dry_run, replace_quotas=replace_quotas)

    sys.exit(_at_each_site(config_file, offerings, work, dry_run=dry_run))


@click.command("sync")
@click.option(
    "--to",
    type=click.Choice(["waldur", "backend"]),
    default="waldur",
    show_default=True,
    help="The side to change: waldur gets the accounts' limits, backend gets the limits sold.",
)
@config_option
@offering_option
@dry_run_option
def limits_sync(
    to: Literal["waldur", "backend"],
    config_file: Path,
    offerings: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Bring the limits of one side to the other, once.

    This ignores the "limits" setting of the file. Resources with an open order, shared accounts,
    and limits set by a periodic policy in Waldur are left unchanged and listed.
    """
    work = partial(sync_resource_limits, follows="backend" if to == "waldur" else "waldur")
    sys.exit(_at_each_site(config_file, offerings, work, dry_run=dry_run))


def _at_each_site(
    path: Path, wanted: Sequence[str], work: Callable[..., CommandOutcome], *, dry_run: bool
) -> int:
    """Do a part of membership_sync for each offering and print it; return the exit code."""
    mode = MEMBERSHIP_SYNC
    start = load_or_exit(path, wanted=wanted, jobs=[mode.job], quiet=True)
    runtime = runtime_or_exit(start, dry_run=dry_run)

    def one(offering: Offering) -> int:
        if not offering.backend_for(mode.job):
            say(f"  no {mode.job.value}; skipped")
            return DONE
        with open_site(runtime, offering, mode, lambda: False) as site:
            outcome = work(site, dry_run=dry_run)
        _print(outcome, dry_run=dry_run)
        return FAILED if outcome.trouble else DONE

    return each_offering(start, one)


def _print(outcome: CommandOutcome, *, dry_run: bool) -> None:
    sign = "would be done: " if dry_run else ""
    for line in outcome.done or ["nothing to do"] * (not outcome.trouble):
        say(on_one_line(f"  {sign if outcome.done else ''}{line}"))
    for line in outcome.remarks:
        say(on_one_line(f"  {line}"))
    for line in outcome.trouble:
        say(on_one_line(f"  ! {line}"))


@dataclass(frozen=True, slots=True)
class _UsernameContext:
    """The part of a site that usernames need; there is no backend."""

    waldur: Waldur
    log: FilteringBoundLogger
    journal: WriteJournal
    stopping: Callable[[], bool] = bool
    given: GivenUsernames = field(default_factory=GivenUsernames)


@click.command("sync")
@config_option
@offering_option
@dry_run_option
def users_sync(config_file: Path, offerings: tuple[str, ...], dry_run: bool) -> None:
    """Generate missing usernames with the offering's username_management_backend.

    Only for offerings whose usernames are set by the service provider. Exit codes: 0 done,
    1 a username could not be set because of an error, 2 usage or configuration error.
    """
    start = load_or_exit(config_file, wanted=offerings, usernames=True, quiet=True)
    registry, journal = UsernameRegistry(), runtime_or_exit(start, dry_run=dry_run).journal

    def sync(offering: Offering) -> int:
        log = structlog.get_logger().bind(offering=offering.name)
        with connect(offering, "users_sync") as waldur, closing(registry.open(offering)) as backend:
            context = _UsernameContext(waldur, log, journal.of(offering.name, "users_sync"))
            uuid = offering.waldur_offering_uuid
            report = sync_offering_users(context, uuid, backend, dry_run=dry_run)
        for line in _username_lines(report):
            say(f"  {line}")
        return FAILED if report.failed else DONE

    sys.exit(each_offering(start, sync))


def _username_lines(report: UsernamesReport) -> Iterator[str]:
    if report.policy_of_others:
        yield f'Waldur sets the usernames of this offering (policy "{report.policy_of_others}")'
    elif not report.changes:
        yield "No changes."
    for change in report.changes:
        yield _username_line(change)
    for name, people in report.duplicates.items():
        who = ", ".join(user.user_username or str(user.user_uuid) for user in people)
        yield f"! {name:<{_PERSON_COLUMN}} is the username of several people in Waldur: {who}"


def _username_line(change: UsernameChange) -> str:
    person = change.user.user_username or str(change.user.user_uuid)
    sign = "~" if change.result in (UsernameResult.DONE, UsernameResult.PLANNED) else "!"
    return f"{sign} {person:<{_PERSON_COLUMN}} {change.text}"


@click.command("list")
@config_option
@offering_option
@output_option()
def import_list(config_file: Path, offerings: tuple[str, ...], output: str) -> None:
    """Print the accounts that would be offered to Waldur for import; change nothing.

    Exit codes: 0 done, 1 something could not be read, 2 usage or configuration error.
    """
    start = load_or_exit(config_file, wanted=offerings, jobs=[MEMBERSHIP_SYNC.job], quiet=True)
    runtime = runtime_of(start, dry_run=True)
    plans: dict[str, ImportPlan] = {}

    def plan(offering: Offering) -> int:
        if offering.backend_for(MEMBERSHIP_SYNC.job):
            with open_site(runtime, offering, MEMBERSHIP_SYNC, lambda: False) as site:
                plans[offering.name] = importable(site)
        return DONE

    code = each_offering(start, plan, titles=False, errors_below=False)
    if output == "json":
        say(json_text({name: _import_json(plan) for name, plan in plans.items()}))
    else:
        for name, found in plans.items():
            say("\n".join([f"{name}:", *_import_lines(found)]))
    sys.exit(code)


def _import_lines(plan: ImportPlan) -> Iterator[str]:
    for offer in plan.offers:
        limits = f", {text}" if (text := _limits_text(offer)) else ""
        project = f"{offer.project.slug} ({_printable(offer.project.name)})"
        yield f"  + {offer.account:<{_ACCOUNT_COLUMN}} project {project}{limits}"
    if not plan.offers:
        yield "  Nothing to offer."
    for reason, number in plan.skipped.items():
        yield f"  {number} left out: they {reason}"


def _limits_text(offer: Offer) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in offer.limits.items())


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())


def _import_json(plan: ImportPlan) -> dict[str, object]:
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
    """The checks of one subject, made lazily."""

    name: str
    checks: Iterable[Check]


@click.command("diagnose", context_settings=colour_settings())
@config_option
@offering_option
@output_option()
@click.option(
    "--broker-login",
    is_flag=True,
    help="Also register for events in Waldur, as event_process does, and log in to the broker.",
)
def diagnose(
    config_file: Path, offerings: tuple[str, ...], output: str, broker_login: bool
) -> None:
    """Check this machine, the configuration, Waldur, permissions, components, backend and broker.

    Prints one line per check, with a remedy where one is needed. Exit codes: 0 no check failed,
    1 at least one did, 2 usage or configuration error.
    """
    start = load_or_exit(config_file, wanted=offerings, quiet=True)
    parts = [_Part("this machine", diagnose_machine(start.configuration, start.source))]
    parts += [_Part(o.name, _checks(start, o, login=broker_login)) for o in start.offerings]
    parts += [_Part(broken.offering, [_unusable(broken)]) for broken in start.broken]
    if output == "json":
        verdicts = _print_json(config_file, parts)
    else:
        say(f"configuration: {config_file} is well-formed, {len(start.offerings)} offering(s)")
        verdicts = _print_text(parts)
    sys.exit(FAILED if CheckStatus.FAILED in verdicts else DONE)


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
        diagnose_settings(start.configuration, offering),
        diagnose_waldur(offering),
        diagnose_backends(offering, start.source, start.registry),
    ):
        failed = failed or check.verdict is CheckStatus.FAILED
        yield check
    if not failed:  # the failed checks say what could not be read
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
    say(json_text(report))
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
        say(f"\n{part.name}")
        for check in part.checks:
            verdicts.add(check.verdict)
            text = f"{check.name}: {check.detail}".rstrip(": ")
            say_verdict(f"{_WORDS[check.verdict]:<8}", _COLOURS[check.verdict], text)
            if check.remedy and check.verdict is not CheckStatus.OK:
                say(f"           -> {check.remedy}")
    return verdicts
