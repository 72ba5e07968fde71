"""What commands share: options, reading the configuration, the loop over offerings, exit codes."""

from __future__ import annotations

import os
import platform
import signal
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import NoReturn
from uuid import UUID

import click
import structlog
from click.core import ParameterSource
from pydantic import BaseModel

from waldur_site_agent import __version__
from waldur_site_agent.backends import Backend, BackendSettings, UsernameBackend
from waldur_site_agent.backends.leases import Leases
from waldur_site_agent.backends.naming import reserve_usernames
from waldur_site_agent.backends.permissions import directory_of_others
from waldur_site_agent.backends.plugins import (
    PluginError,
    Registry,
    UsernameRegistry,
    backend_problems,
    installed_plugins,
    installed_username_plugins,
    problems_of_entry,
    username_backend_problems,
)
from waldur_site_agent.cli.output import json_text, on_one_line, say
from waldur_site_agent.config import (
    BrokenOffering,
    Configuration,
    ConfigurationError,
    Job,
    Loaded,
    Offering,
    Problem,
    Source,
    load_usable,
)
from waldur_site_agent.config.database_url import VERIFIED
from waldur_site_agent.config.describing import (
    json_schema,
    passwords_in,
    reference_page,
    secrets_in,
)
from waldur_site_agent.config.loading import is_of_version_1
from waldur_site_agent.config.source import Place, spell
from waldur_site_agent.config.version_1 import tables
from waldur_site_agent.cycles.site import NoAllowances
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.allowances import Allowances, default_directory
from waldur_site_agent.service.journal import Journal
from waldur_site_agent.service.logs import configure_logs, redact
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.service.session import Runtime

DONE, FAILED, UNUSABLE, REFUSED = 0, 1, 2, 3
"""Exit codes: done; something failed; usage or configuration error; refused by the guard."""

DEFAULT_FILE = "waldur-site-agent-config.yaml"


def of_nobody_else(context: click.Context, parameter: click.Parameter, file: Path) -> Path:
    """Refuse a file of the working directory, which nobody named, that somebody else may have made.

    It says which programs are started: root would run those of whoever owns the directory.
    """
    is_named = context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
    if is_named or file.is_absolute():
        return file
    try:
        real, found = file.resolve(), file.stat()
        place = directory_of_others(file) or directory_of_others(real)
    except OSError:  # reading it says why
        return file
    is_theirs = found.st_uid not in {0, os.geteuid()} or found.st_mode & stat.S_IWOTH
    if place is not None or is_theirs:
        give_up(
            f"{file} of the working directory is not read: {place or real} belongs to another "
            "user, or others can write to it, and the file names programs to start; if you trust "
            f"it, name it: -c {file}"
        )
    return file


config_option = click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_FILE,
    callback=of_nobody_else,
    show_default=True,
    help="The configuration file.",
)


def offering_option(command: Callable[..., object]) -> Callable[..., object]:
    """The ``--offering`` option."""
    return click.option(
        "--offering",
        "offerings",
        multiple=True,
        metavar="NAME_OR_UUID",
        help="Only this offering; repeatable.",
    )(command)


def dry_run_option(command: Callable[..., object]) -> Callable[..., object]:
    """The ``--dry-run`` option."""
    return click.option(
        "--dry-run", is_flag=True, help="Print what would be done; change nothing."
    )(command)


def output_option(*formats: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """The ``--output`` option."""
    return click.option(
        "--output",
        type=click.Choice(formats or ("text", "json")),
        default="text",
        show_default=True,
        help="Output format.",
    )


def colour_settings() -> dict[str, bool]:
    """Context settings of a command: no colours if NO_COLOR is set (no-color.org)."""
    return {"color": False} if os.environ.get("NO_COLOR") else {}


class UsageError(ValueError):
    """The command line does not fit the configuration."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An offering of the file that cannot be served, in all or some of its jobs."""

    offering: str
    jobs: frozenset[Job]
    """The jobs that cannot be done; empty if the whole entry is invalid."""
    error: ConfigurationError

    def stops(self, offering: Offering, jobs: Collection[Job]) -> bool:
        """Whether any of these jobs cannot be done for the offering."""
        return self.offering == offering.name and (
            not self.jobs or any(job in self.jobs for job in jobs)
        )

    @property
    def reason(self) -> str:
        """Every problem, on one line."""
        return str(self.error).replace("\n", "; ")


@dataclass(frozen=True, slots=True)
class Start:
    """A checked configuration, and the offerings and jobs asked for."""

    configuration: Configuration
    source: Source
    registry: Registry
    chosen: tuple[Offering, ...]
    """The offerings asked for whose entries are valid."""
    jobs: tuple[Job, ...] = ()
    """The jobs asked for."""
    broken: tuple[Broken, ...] = ()
    """Those of the offerings asked for that cannot be served."""
    without_effect: tuple[Problem, ...] = ()
    """Keys of version 1 in the file that are not needed any more, each with the reason."""
    differences: tuple[Problem, ...] = ()
    """What a site with a file of version 1 may notice."""

    @property
    def offerings(self) -> tuple[Offering, ...]:
        """The offerings that can be served in every job asked for."""
        return tuple(o for o in self.chosen if not self.is_broken(o, self.jobs))

    def is_broken(self, offering: Offering, jobs: Collection[Job]) -> bool:
        """Whether any of these jobs cannot be done for the offering."""
        return any(broken.stops(offering, jobs) for broken in self.broken)

    def exit_code(self, code: int) -> int:
        """The exit code of a command that ended with ``code`` for :attr:`offerings`."""
        return max(code, FAILED) if self.broken else code


def load(
    path: Path,
    *,
    wanted: Iterable[str] = (),
    jobs: Sequence[Job] = (),
    usernames: bool = False,
    quiet: bool = False,
) -> Start:
    """Read and check the file; an invalid offering does not affect the others.

    Args:
        path: the configuration file.
        wanted: names or UUIDs of offerings; all of them if empty.
        jobs: the jobs whose backends must be installed and accept their settings.
        usernames: whether to check username backends even if no members are synced.
        quiet: log only warnings and errors.

    Raises:
        ConfigurationError: the file, or every offering asked for, is invalid.
        UsageError: the file does not have an offering that was asked for.
    """
    loaded = load_usable(path, check_settings=problems_of_entry)
    configuration, source = loaded.configuration, loaded.source
    redact(secrets_in(source.content))
    redact(passwords_in(_urls_with_passwords(configuration, os.environ)))
    reserve_usernames(configuration.reserved_usernames)
    configure_logs("warning" if quiet else configuration.log_level, configuration.log_format)
    registry = Registry()
    chosen, unreadable = _select(loaded, tuple(wanted), path)
    broken = [Broken(entry.name, frozenset(), entry.error) for entry in unreadable]
    for offering in chosen:
        broken += _broken_jobs(offering, source, registry, jobs, usernames=usernames)
    start = Start(configuration, source, registry, chosen, tuple(jobs), tuple(broken))
    start = _with_remarks(start, loaded)
    if broken and not any(_can_be_served(start, offering) for offering in chosen):
        raise ConfigurationError(path, problems_in(broken))
    return start


def _urls_with_passwords(configuration: Configuration, environ: Mapping[str, str]) -> Iterator[str]:
    yield configuration.global_proxy.get_secret_value()
    yield configuration.coordination.get_secret_value()
    for name, url in environ.items():
        if name.lower().endswith("_proxy") and name.lower() != "no_proxy":
            yield url


def _with_remarks(start: Start, loaded: Loaded) -> Start:
    """Add what a file from version 1 says without effect, and what is different now."""
    without_effect, differences = list(loaded.without_effect), list(loaded.differences)
    for offering in start.chosen:
        if start.is_broken(offering, start.jobs):
            continue
        number = start.source.offering_number(offering.name)
        for name in dict.fromkeys(filter(None, map(offering.backend_for, start.jobs))):
            written = offering.backend_settings
            read = start.registry.read_settings(name, written, start.source, number)
            without_effect += read.without_effect
            if is_of_version_1(start.source, number):
                differences += read.differences
    return replace(
        start,
        without_effect=tuple(dict.fromkeys(without_effect)),
        differences=tuple(dict.fromkeys(differences)),
    )


def grouped(remarks: Iterable[Problem]) -> Iterator[tuple[str, str, str]]:
    """Remarks of the same content as one: the key, its lines, and the text."""
    places: dict[tuple[Place, str], list[Problem]] = {}
    for remark in remarks:
        names = [step for step in remark.place if isinstance(step, str)]
        places.setdefault((tuple(names[-1:]), remark.message), []).append(remark)
    for (name, text), same in places.items():
        lines = sorted({remark.line for remark in same if remark.line is not None})
        where = f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}" if lines else ""
        yield spell(same[0].place if len(same) == 1 else name), where, text


def _can_be_served(start: Start, offering: Offering) -> bool:
    """Whether any job asked for can be done for the offering."""
    jobs = [job for job in start.jobs if offering.backend_for(job)]
    if not start.jobs:
        return not start.is_broken(offering, ())
    return any(not start.is_broken(offering, [job]) for job in jobs)


def _broken_jobs(
    offering: Offering,
    source: Source,
    registry: Registry,
    jobs: Sequence[Job],
    *,
    usernames: bool,
) -> Iterator[Broken]:
    for job in jobs:
        problems = backend_problems(registry, offering, job, source)
        if job is Job.MEMBERSHIP and offering.backend_for(job):
            problems += username_backend_problems(UsernameRegistry(), offering, source)
        if problems:
            yield Broken(offering.name, frozenset([job]), ConfigurationError(source.path, problems))
    if usernames:
        problems = username_backend_problems(UsernameRegistry(), offering, source)
        if problems:
            yield Broken(offering.name, frozenset(), ConfigurationError(source.path, problems))


def problems_in(broken: Iterable[Broken]) -> list[Problem]:
    """All problems without repetitions: several jobs may have the same backend."""
    return list(dict.fromkeys(p for entry in broken for p in entry.error.problems))


def load_or_exit(path: Path, **arguments: object) -> Start:
    """:func:`load` for a command, with errors printed to standard error.

    Exits with code 2 if nothing can be done. If only some offerings cannot be served, they are
    named on standard error, and the command ends with :meth:`Start.exit_code`.
    """
    loader: Callable[..., Start] = load
    try:
        start = loader(path, **arguments)
    except (ConfigurationError, UsageError) as error:
        give_up(str(error))
    if start.broken:
        say(str(ConfigurationError(path, problems_in(start.broken))), err=True)
        names = ", ".join(f'"{name}"' for name in dict.fromkeys(b.offering for b in start.broken))
        say(f"skipped because of this: {names}", err=True)
    return start


def check_file(path: Path) -> Start:
    """:func:`load` for commands about the file itself: any problem exits with code 2."""
    try:
        start = load(path, jobs=tuple(Job), usernames=True, quiet=True)
    except ConfigurationError as error:
        give_up(str(error))
    if start.broken:
        give_up(str(ConfigurationError(path, problems_in(start.broken))))
    return start


def give_up(message: str, code: int = UNUSABLE) -> NoReturn:
    """Print a message to standard error and exit."""
    say(message, err=True)
    sys.exit(code)


def runtime_of(
    start: Start,
    *,
    dry_run: bool = False,
    removals_allowed: bool = False,
    recreate: bool = False,
    monitoring: Monitoring | None = None,
) -> Runtime:
    """What the sessions of this process share.

    Raises:
        UsageError: the journal cannot be opened.
    """
    url = None if dry_run else start.configuration.coordination_url
    if url is not None and url.exposed:
        structlog.get_logger().warning(
            "the connection to the coordinating database is not protected",
            reason=url.exposed,
            remedy=f"coordination: {VERIFIED}",
        )
    return Runtime(
        leases=None if url is None else Leases(url),
        configuration=start.configuration,
        source=start.source,
        registry=start.registry,
        removals_allowed=removals_allowed,
        recreate=recreate,
        journal=open_journal(start, dry_run=dry_run),
        allowances=NoAllowances() if dry_run else Allowances(default_directory()),
        monitoring=monitoring or Monitoring(),
    )


def runtime_or_exit(start: Start, *, dry_run: bool) -> Runtime:
    """:func:`runtime_of` for a command; exits with code 2 if the journal cannot be opened."""
    try:
        return runtime_of(start, dry_run=dry_run)
    except UsageError as error:
        give_up(str(error))


def open_journal(start: Start, *, dry_run: bool) -> Journal:
    """The configured journal; a dry run writes none.

    Raises:
        UsageError: the journal cannot be opened.
    """
    path = start.configuration.journal
    try:
        return Journal(Path(path) if path and not dry_run else None)
    except OSError as error:
        raise UsageError(f"{start.source.path}: journal: cannot be opened: {error}") from error


def each_offering(
    start: Start,
    work: Callable[[Offering], int],
    *,
    offerings: Iterable[Offering] | None = None,
    titles: bool = True,
    errors_below: bool = True,
) -> int:
    """Do some work for each offering; an error with one does not stop the others.

    Args:
        start: the configuration and the offerings asked for.
        work: what to do; it returns an exit code.
        offerings: the offerings; by default all that can be served.
        titles: print the offering's name first.
        errors_below: print errors below the title instead of on standard error.

    Returns:
        The exit code of the command.
    """
    code = DONE
    for offering in start.offerings if offerings is None else offerings:
        if titles:
            say(f"{offering.name}:")
        try:
            code = max(code, work(offering))
        except (SiteAgentError, ConfigurationError) as error:
            if errors_below:
                say(on_one_line(f"  ! {error}"))
            else:
                say(f"! {offering.name}: {error}", err=True)
            code = FAILED
    return start.exit_code(code)


def _select(
    loaded: Loaded, wanted: tuple[str, ...], path: Path
) -> tuple[tuple[Offering, ...], tuple[BrokenOffering, ...]]:
    """The offerings asked for: those with valid entries, and the others."""
    readable, unreadable = loaded.configuration.offerings, loaded.broken
    if not wanted:
        return readable, unreadable
    entries: list[Offering | BrokenOffering] = [*readable, *unreadable]
    meant: set[str] = set()
    for text in wanted:
        matches = {o.name for o in entries if _is_meant(o, text)}
        if not matches:
            known = ", ".join(f'"{offering.name}"' for offering in entries)
            raise UsageError(f'{path} has no offering "{text}"; it has {known}')
        meant |= matches
    return (
        tuple(offering for offering in readable if offering.name in meant),
        tuple(offering for offering in unreadable if offering.name in meant),
    )


def _is_meant(offering: Offering | BrokenOffering, text: str) -> bool:
    if offering.name == text:
        return True
    found = offering.uuid if isinstance(offering, BrokenOffering) else offering.waldur_offering_uuid
    try:
        return UUID(str(found)) == UUID(text)
    except ValueError:
        return False


@click.command("schema")
def schema_command() -> None:
    """Print a JSON Schema of the file, including the settings of the installed plugins.

    Editors use it for completion and validation; put this line at the top of the file:
    # yaml-language-server: $schema=waldur-site-agent.schema.json
    """
    say(json_text(json_schema(*_models())))


@click.command("reference")
def reference_command() -> None:
    """Print all keys of the file with type, default and description, as Markdown."""
    say(reference_page(*_models()), nl=False)


@click.command("version-1")
def version_1_command() -> None:
    """Print what became of each key of version 1, as Markdown."""
    backends = Registry()
    models = _settings(backends.names(), backends.backend_class)
    say(tables({name: model.version_1 for name, model in models}))


def _models() -> tuple[dict[str, type[BaseModel]], dict[str, type[BaseModel]]]:
    """The settings models of the installed backends and username backends."""
    backends, usernames = Registry(), UsernameRegistry()
    return (
        dict(_settings(backends.names(), backends.backend_class)),
        dict(_settings(usernames.names(), usernames.backend_class)),
    )


def _settings(
    names: Iterable[str], find: Callable[[str], type[Backend | UsernameBackend]]
) -> Iterator[tuple[str, type[BackendSettings]]]:
    for name in names:
        try:
            yield name, find(name).Settings
        except PluginError as error:
            say(f"skipped: {error}", err=True)


INTERRUPTED = 130
"""The exit code after SIGINT, by shell convention."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM interrupt the body once; its cleanup is not interrupted."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in numbers:
        signal.signal(each, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        sys.stdout.flush()
        say("\nstopped", err=True)
        sys.exit(INTERRUPTED)


def version_text() -> str:
    """The versions of the agent, each plugin and Python, one per line."""
    lines = [f"waldur-site-agent {__version__}"]
    for kind, plugins in (
        ("backend", installed_plugins()),
        ("username backend", installed_username_plugins()),
    ):
        lines += [
            f"{kind} {plugin.name}: {plugin.distribution} {_version_of(plugin.distribution)}"
            for plugin in plugins.values()
        ]
    return "\n".join([*lines, f"Python {platform.python_version()}"])


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(unknown version)"


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        say(version_text())
        context.exit()


def version_option(command: Callable[..., object]) -> Callable[..., object]:
    """The ``--version`` option."""
    return click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the versions of the agent, its plugins and Python, and exit.",
    )(command)
