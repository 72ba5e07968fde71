"""Describes the configuration file: as a JSON Schema for editors, and as a page of keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from waldur_site_agent.backends.plugins import PluginError
from waldur_site_agent.backends.registry import Registry
from waldur_site_agent.backends.username_registry import UsernameRegistry
from waldur_site_agent.config.describing import json_schema, reference_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydantic import BaseModel

    from waldur_site_agent.backends import Backend, UsernameBackend


@click.command("schema")
def schema_command() -> None:
    """Print a JSON Schema of the file, with the settings of the installed plugins.

    An editor that knows YAML completes and checks with it; put this line at the top of the file:
    # yaml-language-server: $schema=waldur-site-agent.schema.json
    """
    click.echo(json.dumps(json_schema(*_models()), indent=2))


@click.command("reference")
def reference_command() -> None:
    """Print every key of the file with its type, default and meaning, as Markdown."""
    click.echo(reference_page(*_models()), nl=False)


def _models() -> tuple[dict[str, type[BaseModel]], dict[str, type[BaseModel]]]:
    """The settings models of the backends and username backends that are installed."""
    backends, usernames = Registry(), UsernameRegistry()
    return (
        dict(_settings(backends.names(), backends.backend_class)),
        dict(_settings(usernames.names(), usernames.backend_class)),
    )


def _settings(
    names: Iterable[str], find: Callable[[str], type[Backend | UsernameBackend]]
) -> Iterator[tuple[str, type[BaseModel]]]:
    for name in names:
        try:
            yield name, find(name).Settings
        except PluginError as error:
            click.echo(f"left out: {error}", err=True)
