"""``diagnose``: a verdict per line, a remedy where one is needed, exit code 1 if anything fails."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from waldur_site_agent.backends import Check, Verdict
from waldur_site_agent.cli.starting import DONE, FAILED, load_or_exit
from waldur_site_agent.service.broker_checks import diagnose_broker
from waldur_site_agent.service.diagnosis import diagnose_backends, diagnose_waldur
from waldur_site_agent.service.limit_checks import diagnose_limits
from waldur_site_agent.service.machine_checks import diagnose_machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from waldur_site_agent.cli.starting import Broken, Start
    from waldur_site_agent.config import Offering

_WORDS = {Verdict.OK: "ok", Verdict.WARNING: "WARNING", Verdict.FAILED: "FAILED"}
_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}


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
    return FAILED if Verdict.FAILED in verdicts else DONE


def _unusable(broken: Broken) -> Check:
    return Check(
        name="configuration",
        verdict=Verdict.FAILED,
        detail=broken.reason,
        remedy="correct the file; no other check of this offering was made",
    )


def _checks(start: Start, offering: Offering, *, login: bool) -> Iterator[Check]:
    failed = False
    for check in chain(
        diagnose_waldur(offering), diagnose_backends(offering, start.source, start.registry)
    ):
        failed = failed or check.verdict is Verdict.FAILED
        yield check
    if not failed:  # what could not be read was said above
        yield from diagnose_limits(offering, start.source, start.registry)
    yield from diagnose_broker(offering, login=login)


def _print_json(path: Path, parts: Iterable[_Part]) -> set[Verdict]:
    verdicts: set[Verdict] = set()
    found: list[dict[str, Any]] = []
    for part in parts:
        checks = list(part.checks)
        verdicts |= {check.verdict for check in checks}
        found.append({"name": part.name, "checks": [_plain(check) for check in checks]})
    machine, *offerings = found
    failed = Verdict.FAILED in verdicts
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


def _print_text(parts: Iterable[_Part]) -> set[Verdict]:
    verdicts = set()
    for part in parts:
        click.echo(f"\n{part.name}")
        for check in part.checks:
            verdicts.add(check.verdict)
            word = click.style(f"{_WORDS[check.verdict]:<8}", fg=_COLOURS[check.verdict])
            click.echo(f"  {word} {check.name}: {check.detail}".rstrip(": "))
            if check.remedy and check.verdict is not Verdict.OK:
                click.echo(f"           -> {check.remedy}")
    return verdicts
