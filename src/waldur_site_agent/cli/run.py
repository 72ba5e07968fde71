"""Runs the agent: as a service, for one cycle, or as a dry run."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog

from waldur_site_agent.backends.plugins import NO_NAMES
from waldur_site_agent.cli.output import say
from waldur_site_agent.cli.plan import report_text, reports_json, what_it_is_about
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    REFUSED,
    Start,
    UsageError,
    check_file,
    give_up,
    grouped,
    load,
    problems_in,
    runtime_of,
)
from waldur_site_agent.config import ConfigurationError, Job, Offering, resolved_yaml
from waldur_site_agent.config.version_1 import variables_without_effect
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.service.diagnosis import warn_of_unused_settings
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.service.pool import Unserved, WorkerPool, run_interruptible, serve
from waldur_site_agent.service.process import Notifier, Stop
from waldur_site_agent.service.session import (
    AVAILABLE,
    MODE_NAMES,
    AnyMode,
    EventMode,
    Runtime,
    connect,
    jobs_of,
)
from waldur_site_agent.service.worker import once


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command-line options of a run."""

    mode: str
    config_file: Path
    once: bool = False
    dry_run: bool = False
    offerings: tuple[str, ...] = ()
    allow_removals: bool = False
    recreate: bool = False
    """Whether accounts that a backend has lost are made again."""
    exit_code: bool = False
    """Whether the exit code of a dry run reflects the plan, not only errors in making it."""
    output: str = "text"
    """The output format of a dry run: ``text`` or ``json``."""

    @property
    def is_one_cycle(self) -> bool:
        """Whether the agent ends after one cycle."""
        return self.once or self.dry_run


def mode_option(command: Callable[..., object]) -> Callable[..., object]:
    """The ``--mode`` option."""
    return click.option(
        "-m",
        "--mode",
        type=click.Choice(MODE_NAMES),
        default="order_process",
        show_default=True,
        help="What to do: process orders, report usage, sync members, react to events, or all.",
    )(command)


def removals_option(command: Callable[..., object]) -> Callable[..., object]:
    """The ``--allow-removals`` option."""
    return click.option(
        "--allow-removals",
        is_flag=True,
        help="Allow more removals than the safety thresholds permit.",
    )(command)


def recreate_option(command: Callable[..., object]) -> Callable[..., object]:
    """The ``--recreate`` option."""
    return click.option(
        "--recreate",
        is_flag=True,
        help="Make accounts again, from Waldur, that the backend has lost (-m membership_sync).",
    )(command)


def print_configuration(path: Path) -> None:
    """Print the resolved configuration, secrets masked; exit with 2 if it cannot be used."""
    start = check_file(path)
    warn_of_unused_settings(start.configuration)
    say(resolved_yaml(start.configuration, _settings_of_plugins(start)), nl=False)


def check_configuration(path: Path) -> None:
    """Print which backend does what for each offering; exit with 2 if the file has errors."""
    start = check_file(path)
    warn_of_unused_settings(start.configuration)
    offerings = start.configuration.offerings
    for offering in offerings:
        say(f"{offering.name}: {_who_does_what(offering)}")
    print_remarks(start)
    backends = {name for offering in offerings for name in _backends_of(offering)}
    say(f"ok: {_count(len(offerings), 'offering')}, {_count(len(backends), 'backend')}")


def print_remarks(start: Start) -> None:
    """Print what a file from version 1 has without effect, and where defaults are others now."""
    for title, remarks in (
        ("Without effect:", start.without_effect),
        ("Different from version 1:", start.differences),
    ):
        for number, (key, lines, text) in enumerate(grouped(remarks)):
            if number == 0:
                say(f"\n{title}")
            say(f"  {' '.join(filter(None, [key, lines and f'({lines})']))}: {text}")
    variables = list(variables_without_effect(os.environ))
    for number, (name, text) in enumerate(variables):
        say(f"{'' if number else chr(10)}Environment variable {name}: not needed: {text}")
    if start.without_effect or start.differences or variables:
        say()


def _log_remarks(start: Start) -> None:
    log = structlog.get_logger()
    for key, lines, text in grouped(start.without_effect):
        log.info("setting has no effect", setting=key, where=lines, reason=text)
    for name, text in variables_without_effect(os.environ):
        log.info("environment variable has no effect", variable=name, reason=text)


def _who_does_what(offering: Offering) -> str:
    """The modes that serve an offering, with their backends, on one line."""
    by_backend: dict[str, list[str]] = {}
    for mode in AVAILABLE.values():
        if mode.serves(offering):
            for name in dict.fromkeys(filter(None, map(offering.backend_for, mode.jobs))):
                by_backend.setdefault(name, []).append(mode.name)
    parts = [f"{', '.join(modes)} with {name}" for name, modes in by_backend.items()]
    usernames = offering.username_management_backend
    if usernames != NO_NAMES:
        parts.append(f"usernames with {usernames}")
    return "; ".join(parts) or f"no mode serves it; set {', '.join(job.value for job in Job)}"


def _backends_of(offering: Offering) -> set[str]:
    names = {offering.backend_for(job) for job in Job} | {offering.username_management_backend}
    return names - {"", NO_NAMES}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _settings_of_plugins(start: Start) -> dict[str, dict[str, Any]]:
    """By offering name, its ``backend_settings`` with all defaults filled in."""
    return {
        offering.name: {
            key: value
            for name in sorted({offering.backend_for(job) for job in Job} - {""})
            for key, value in start.registry.settings(name, offering, None)
            .model_dump(mode="json")
            .items()
        }
        for offering in start.configuration.offerings
    }


def run(options: RunOptions) -> int:
    """Run the agent as the options say; return the exit code."""
    modes = _modes(options.mode)
    if options.recreate and not (options.mode == "membership_sync" and options.is_one_cycle):
        give_up("--recreate is for one cycle of membership_sync: add -m membership_sync --once")
    try:
        start = load(
            options.config_file,
            wanted=options.offerings,
            jobs=jobs_of(modes),
            quiet=options.dry_run,
        )
        for mode in modes:
            mode.period_seconds()
        work = _work(start, modes)
        runtime = runtime_of(
            start,
            dry_run=options.dry_run,
            removals_allowed=options.allow_removals,
            recreate=options.recreate,
            monitoring=Monitoring(
                options.mode,
                notifier=Notifier(),
                connect=partial(connect, mode="log_shipping"),
            ),
        )
    except (ConfigurationError, ValueError) as error:
        give_up(str(error))
    warn_of_unused_settings(start.configuration)
    _log_remarks(start)
    monitoring = runtime.monitoring
    try:
        if options.is_one_cycle:
            monitoring.report_errors(start.configuration)
            with closing(runtime.journal):
                reports = run_interruptible(lambda stop: _once(runtime, work, options, stop))
            return _conclude(reports, options)
        monitoring.adopt(start.configuration)
        faulthandler.enable()  # systemd's watchdog aborts a stuck agent: print where it was
        pool = WorkerPool(runtime, work.pairs, work.broken)
        return serve(pool, _PoolMaker(options, modes, monitoring, work), monitoring)
    finally:
        monitoring.close()
        if runtime.leases is not None:
            runtime.leases.close()


def _modes(name: str) -> list[AnyMode]:
    return list(AVAILABLE.values()) if name == "all" else [AVAILABLE[name]]


@dataclass(frozen=True, slots=True)
class _Work:
    """The pairs of offering and mode to serve, and those that cannot be served."""

    pairs: tuple[tuple[Offering, AnyMode], ...]
    broken: tuple[Unserved, ...]


def _work(start: Start, modes: Sequence[AnyMode]) -> _Work:
    """Find the offerings that each mode serves.

    Raises:
        ConfigurationError: the configuration of every such offering is invalid.
        UsageError: there are none.
    """
    taking_part = [(o, mode) for o in start.chosen for mode in modes if mode.serves(o)]
    pairs = [(o, mode) for o, mode in taking_part if not start.is_broken(o, mode.jobs)]
    if not pairs and start.broken:
        raise ConfigurationError(start.source.path, problems_in(start.broken))
    if not pairs:
        raise UsageError(_nobody_takes_part(start, modes))
    broken = [
        Unserved(offering.name, mode.name, entry.reason)
        for offering, mode in taking_part
        for entry in start.broken
        if entry.stops(offering, mode.jobs)
    ]
    readable = {offering.name for offering in start.chosen}
    broken += [
        Unserved(entry.offering, mode.name, entry.reason)
        for entry in start.broken
        for mode in modes
        if entry.offering not in readable
    ]
    return _Work(tuple(pairs), tuple(broken))


def _nobody_takes_part(start: Start, modes: Sequence[AnyMode]) -> str:
    keys = " or ".join(job.value for job in jobs_of(modes))
    names = " or ".join(mode.name for mode in modes)
    by_events = all(isinstance(mode, EventMode) for mode in modes)
    remedy = (
        f"set {keys}, and stomp_enabled or mqtt_enabled"
        if by_events
        else f"set {keys}; order_process and membership_sync leave offerings with "
        "stomp_enabled or mqtt_enabled to event_process"
    )
    return f"no offering of {start.source.path} takes part in mode {names}: {remedy}"


def _once(runtime: Runtime, work: _Work, options: RunOptions, stop: Stop) -> list[CycleReport]:
    reports: list[CycleReport] = []
    for offering, mode in work.pairs:
        reports += once(runtime, offering, mode, dry_run=options.dry_run, stop=stop)
    for broken in work.broken:
        if not options.dry_run:  # a dry run prints the reason instead of the plan
            broken.log()
        reports.append(CycleReport(offering=broken.offering, trouble=broken.reason))
    return reports


@dataclass(slots=True)
class _PoolMaker:
    """Makes a worker pool from a freshly read configuration."""

    options: RunOptions
    modes: Sequence[AnyMode]
    monitoring: Monitoring
    work: _Work
    """The work of the current worker pool."""

    def __call__(self) -> WorkerPool:
        """Make the next worker pool.

        Raises:
            ConfigurationError, UsageError: the file is invalid, or breaks an offering that is
                currently served; the current pool then stays in place.
        """
        options = self.options
        start = load(options.config_file, wanted=options.offerings, jobs=jobs_of(self.modes))
        work = _work(start, self.modes)
        served = {(offering.name, mode.name) for offering, mode in self.work.pairs}
        if any((entry.offering, entry.mode) in served for entry in work.broken):
            raise ConfigurationError(options.config_file, problems_in(start.broken))
        runtime = runtime_of(
            start, removals_allowed=options.allow_removals, monitoring=self.monitoring
        )
        pool = WorkerPool(runtime, work.pairs, work.broken)
        self.monitoring.adopt(start.configuration)
        self.work = work
        return pool


def _conclude(reports: Sequence[CycleReport], options: RunOptions) -> int:
    if options.dry_run and options.output == "json":
        say(reports_json(reports))
    elif options.dry_run:
        for report in reports:
            if len(reports) > 1:
                say(f"== {report.offering}: {what_it_is_about(report)} ==")
            say(report_text(report))
    sys.stdout.flush()
    if options.dry_run and not options.exit_code:
        return FAILED if any(report.trouble for report in reports) else DONE
    if any(report.refused_reason for report in reports):
        return REFUSED
    return FAILED if any(report.failed for report in reports) else DONE
