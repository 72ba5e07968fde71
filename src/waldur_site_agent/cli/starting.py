"""What every command does first: read the configuration, set up the logs, pick the offerings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

import click

from waldur_site_agent.backends.registry import Registry, check_backends
from waldur_site_agent.backends.username_registry import (
    UsernameRegistry,
    check_username_backends,
)
from waldur_site_agent.config import ConfigurationError, Job, load_configuration
from waldur_site_agent.config.secrecy import secrets_in
from waldur_site_agent.service.logs import conceal, configure_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from waldur_site_agent.config import Configuration, Offering, Source

DONE, FAILED, UNUSABLE, REFUSED = 0, 1, 2, 3
"""Exit codes: done; something failed; usage or configuration error; refused by the guard."""

DEFAULT_FILE = "waldur-site-agent-config.yaml"

config_option = click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_FILE,
    show_default=True,
    help="The configuration file.",
)


class UsageError(ValueError):
    """The command line asks for something that the configuration does not have."""


@dataclass(frozen=True, slots=True)
class Start:
    """A checked configuration and what is needed to work by it."""

    configuration: Configuration
    source: Source
    registry: Registry
    offerings: tuple[Offering, ...]


def load(
    path: Path, *, wanted: Iterable[str] = (), jobs: Sequence[Job] = (), quiet: bool = False
) -> Start:
    """Read and check the file.

    Args:
        path: the configuration file.
        wanted: names or UUIDs of offerings; all of them when empty.
        jobs: the jobs whose backends must be installed and like their settings.
        quiet: log warnings only, for commands whose output is what matters.

    Raises:
        ConfigurationError: the file, or what it says for one of the jobs, cannot be used.
        UsageError: an offering is wanted that the file does not have.
    """
    configuration, source = load_configuration(path)
    registry = Registry()
    conceal(secrets_in(source.content))
    configure_logs("warning" if quiet else configuration.log_level, configuration.log_format)
    names = {
        offering.name: {name for job in jobs if (name := offering.backend_for(job))}
        for offering in configuration.offerings
    }
    check_backends(registry, configuration.offerings, names, source)
    if Job.MEMBERSHIP in jobs:
        named = [o for o in configuration.offerings if o.backend_for(Job.MEMBERSHIP)]
        check_username_backends(UsernameRegistry(), configuration, source, named)
    return Start(configuration, source, registry, _select(configuration, tuple(wanted), path))


def load_or_exit(path: Path, **arguments: object) -> Start:
    """:func:`load`, with errors printed for people and exit code 2."""
    loader: Callable[..., Start] = load
    try:
        return loader(path, **arguments)
    except (ConfigurationError, UsageError) as error:
        give_up(str(error))


def give_up(message: str, code: int = UNUSABLE) -> NoReturn:
    """Say why on standard error, and exit."""
    click.echo(message, err=True)
    sys.exit(code)


def _select(
    configuration: Configuration, wanted: tuple[str, ...], path: Path
) -> tuple[Offering, ...]:
    if not wanted:
        return configuration.offerings
    chosen: list[Offering] = []
    for text in wanted:
        matches = [o for o in configuration.offerings if _is_meant(o, text)]
        if not matches:
            known = ", ".join(f'"{offering.name}"' for offering in configuration.offerings)
            raise UsageError(f'{path} has no offering "{text}"; it has {known}')
        chosen += [offering for offering in matches if offering not in chosen]
    return tuple(chosen)


def _is_meant(offering: Offering, text: str) -> bool:
    try:
        return offering.waldur_offering_uuid == UUID(text)
    except ValueError:
        return offering.name == text
