"""``diagnose``: a line per check of machine, configuration, Waldur, backend and broker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import click

from waldur_site_agent.backends import Check, CheckStatus
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    Broken,
    Start,
    colour_settings,
    config_option,
    load_or_exit,
    offering_option,
    output_option,
)
from waldur_site_agent.config import Offering
from waldur_site_agent.service.diagnosis import (
    diagnose_backends,
    diagnose_broker,
    diagnose_limits,
    diagnose_machine,
    diagnose_waldur,
)

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
        click.echo(
            f"configuration: {config_file} is well-formed, {len(start.offerings)} offering(s)"
        )
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
        diagnose_waldur(offering), diagnose_backends(offering, start.source, start.registry)
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
