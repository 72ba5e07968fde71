"""``diagnose``: a verdict per line, a remedy where one is needed, exit code 1 if anything fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from waldur_site_agent.backends import Verdict
from waldur_site_agent.cli.starting import DONE, FAILED, load_or_exit
from waldur_site_agent.service.diagnosis import diagnose_backends, diagnose_waldur

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from waldur_site_agent.backends import Check

_WORDS = {Verdict.OK: "ok", Verdict.WARNING: "WARNING", Verdict.FAILED: "FAILED"}
_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}


def diagnose_and_print(path: Path, wanted: Sequence[str]) -> int:
    """Make all checks of the chosen offerings; return the exit code."""
    start = load_or_exit(path, wanted=wanted, quiet=True)
    click.echo(f"configuration: {path} is well-formed, {len(start.offerings)} offering(s)")
    verdicts: set[Verdict] = set()
    for offering in start.offerings:
        click.echo(f"\n{offering.name}")
        verdicts |= _print(diagnose_waldur(offering))
        verdicts |= _print(diagnose_backends(offering, start.source, start.registry))
    return FAILED if Verdict.FAILED in verdicts else DONE


def _print(checks: Iterable[Check]) -> set[Verdict]:
    verdicts = set()
    for check in checks:
        verdicts.add(check.verdict)
        word = click.style(f"{_WORDS[check.verdict]:<8}", fg=_COLOURS[check.verdict])
        click.echo(f"  {word} {check.name}: {check.detail}".rstrip(": "))
        if check.remedy and check.verdict is not Verdict.OK:
            click.echo(f"           -> {check.remedy}")
    return verdicts
