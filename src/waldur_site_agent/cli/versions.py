"""What ``--version`` says: the agent, its plugins, and the Python they run on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import click

from waldur_site_agent import __version__
from waldur_site_agent.backends.registry import installed_plugins
from waldur_site_agent.backends.username_registry import installed_username_plugins

if TYPE_CHECKING:
    from collections.abc import Callable


def version_text() -> str:
    """One line for the agent, one for each plugin, one for Python."""
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
        return "of unknown version"


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(version_text())
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
