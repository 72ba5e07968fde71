"""``status`` and ``journal``: how the agents of this machine do, and what they have changed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from waldur_site_agent.cli.output import (
    clear_terminal,
    json_text,
    on_one_line,
    say,
    say_verdict,
)
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    colour_settings,
    config_option,
    give_up,
    load_or_exit,
    output_option,
)
from waldur_site_agent.config import Configuration
from waldur_site_agent.planning.plan import SHOWN_DIGEST
from waldur_site_agent.service.allowances import Allowances, default_directory
from waldur_site_agent.service.health import default_health_file, files_of, read_health
from waldur_site_agent.service.journal_reading import Entry, read_journal, since_of
from waldur_site_agent.service.overview import age_text

_SHOWN = 10
_COLOURS = {"ok": "green", "failing": "yellow", "stuck": "red", "dead": "red", "unknown": "red"}
_EVERY_SECONDS = 2.0


@click.command("status", context_settings=colour_settings())
@config_option
@output_option()
@click.option("--watch", is_flag=True, help="Print it again every two seconds, until Ctrl-C.")
def status_command(config_file: Path, output: str, watch: bool) -> None:
    """Print the state of the agents on this machine; change nothing.

    Offerings with their jobs, the last success of each, what is waiting, which plans were refused
    and how to allow them, and budgets of which more than 80 % is used.

    Exit codes: 0 all is well, 1 an agent is not running or failing, or a plan is refused,
    2 configuration error.
    """
    configuration = load_or_exit(config_file, quiet=True).configuration
    while True:
        found = status_json(configuration)
        if watch and output == "text":
            clear_terminal()
        if output == "json":
            say(json_text(found))
        else:
            _print(found)
        if not watch:
            sys.exit(DONE if found["ok"] else FAILED)
        try:
            time.sleep(_EVERY_SECONDS)
        except KeyboardInterrupt:
            sys.exit(DONE)


def status_json(configuration: Configuration) -> dict[str, Any]:
    """The status as JSON values."""
    chosen = default_health_file(configuration, os.environ)
    files = files_of(chosen, None) if chosen else []
    agents = [read_health(file) for file in files]
    workers: list[Mapping[str, Any]] = [w for a in agents for w in a.report.get("workers", ())]
    refused, problem = _refused()
    names = [offering.name for offering in configuration.offerings]
    return {
        "ok": bool(agents)
        and all(each.status == "ok" for each in agents)
        and not refused,
        "agents": [
            {"file": str(each.path), "status": each.status, "detail": each.detail,
             "coordination": each.report.get("coordination")}
            for each in agents
        ],
        "offerings": [
            {"name": name, "workers": [w for w in workers if w["offering"] == name],
             "refused": [each for each in refused if each["offering"] == name]}
            for name in names
        ],
        "remarks": [problem] if problem else [],
    }  # fmt: skip


def _refused() -> tuple[list[dict[str, Any]], str]:
    allowances = Allowances(default_directory())
    try:
        plans = allowances.refused()
    except OSError as error:
        return [], f"only root and the agent's user can read refused plans: {error}"
    return [
        {
            "offering": plan.offering,
            "job": plan.job,
            "digest": plan.digest,
            "reason": plan.reason,
            "changes": {account: list(names) for account, names in plan.changes.items()},
            "at": datetime.fromtimestamp(plan.at, UTC).isoformat(timespec="seconds"),
            "allowed": allowances.allowed(plan.digest),
        }
        for plan in plans
    ], ""


def _print(found: Mapping[str, Any]) -> None:
    for agent in found["agents"]:
        if agent["status"] == "unknown":
            _line("unknown", agent["detail"])
    if not found["agents"]:
        _line("unknown", "no agent with this configuration has run on this machine")
    for offering in found["offerings"]:
        say(on_one_line(offering["name"]))
        for worker in offering["workers"]:
            success = f"last success {age_text(worker['last_success'])}"
            trouble = f": {worker['trouble']}" if worker["trouble"] else ""
            text = f"{worker['mode']:<16} {worker['doing']}, {success}{trouble}"
            _line(worker["status"], text)
        if not offering["workers"]:
            say("  not served by an agent that runs here")
        for line in _details(offering):
            say(on_one_line(line))
    for remark in found["remarks"]:
        say(on_one_line(f"! {remark}"))


def _line(status: str, text: str) -> None:
    say_verdict(f"{status:<8}", _COLOURS.get(status, "red"), on_one_line(text))


def _details(offering: Mapping[str, Any]) -> Iterator[str]:
    waiting = [line for worker in offering["workers"] for line in worker.get("waiting", ())]
    yield from _some("waits", waiting)
    for plan in offering["refused"]:
        yield f"  refused  {plan['job']} at {plan['at']}: {plan['reason'].partition(';')[0]}"
        if plan["allowed"]:
            yield "           allowed: the next cycle carries it out"
        else:
            yield f"           waldur-site-agent allow {plan['digest'][:SHOWN_DIGEST]}"
    budgets = [each for worker in offering["workers"] for each in worker.get("budgets") or ()]
    yield from _some(
        "budget",
        [
            f"{b['account']}: {b['component']} {b['percent']} % ({b['used']} of {b['limit']})"
            for b in budgets
        ],
    )


def _some(word: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines[:_SHOWN]:
        yield f"  {word:<8} {line}"
    if len(lines) > _SHOWN:
        yield f"  {word:<8} and {len(lines) - _SHOWN} more (--output json)"


@click.command("journal")
@click.argument("name", required=False, default="")
@config_option
@output_option()
@click.option("--since", metavar="TIME", help="Such as 2026-11-01, 2026-11-01T12:00, 36h or 7d.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="The last.")
def journal_command(
    name: str, config_file: Path, output: str, since: str | None, limit: int
) -> None:
    """Print what the agents changed: who was added to or removed from what, when and why.

    NAME is an account, a username, an offering, the UUID of an order or another object, a digest,
    or a cycle; without it everything is printed. Reads the file `journal` and the one before it
    (FILE.1).

    Exit codes: 0 printed, 2 there is no journal or it cannot be read.
    """
    path = load_or_exit(config_file, quiet=True).configuration.journal
    if not path:
        give_up("the configuration has no journal: set journal to a file")
    try:
        moment = since_of(since, datetime.now(UTC)) if since else None
    except (ValueError, OverflowError):
        give_up(f"--since: {since!r} is neither a date such as 2026-11-01 nor an age such as 36h")
    try:
        found = read_journal(Path(path), name, moment, limit)
    except OSError as error:
        give_up(f"{path}: cannot be read: {error.strerror}")
    if output == "json":
        say(json_text([dict(entry.raw) for entry in found]))
        return
    for entry in found:
        say(on_one_line(entry_line(entry)))
    if not found:
        say("nothing", err=True)


def entry_line(entry: Entry) -> str:
    """One entry as a line."""
    when = entry.time.astimezone().isoformat(sep=" ", timespec="seconds")
    failed = f"  FAILED: {entry.error}" if entry.failed else ""
    reason = f"  ({entry.reason})" if entry.reason else ""
    cycle = f" cycle {entry.cycle}" if entry.cycle else ""
    where = f"  [{entry.offering}, {entry.mode or 'command'}{cycle}]"
    return f"{when}  {entry.about or '-'}: {entry.text}{reason}{failed}{where}"
