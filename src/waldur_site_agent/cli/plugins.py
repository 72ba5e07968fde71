"""``plugins``: what is installed, which interface each plugin has, and what uses it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from waldur_site_agent.backends.contract import Backend
from waldur_site_agent.backends.plugins import (
    Plugin,
    PluginError,
    installed_plugins,
    installed_username_plugins,
    unkept_promises,
)
from waldur_site_agent.backends.usernames import UsernameBackend
from waldur_site_agent.cli.output import json_text, say
from waldur_site_agent.cli.start import DONE, FAILED, config_option, output_option
from waldur_site_agent.config import ConfigurationError, Job, Offering
from waldur_site_agent.config.loading import load_usable

_PRESENT = "version 2"
_JOBS = {
    Job.ORDERS: "order processing",
    Job.MEMBERSHIP: "membership sync",
    Job.REPORT: "reporting",
}


@click.command("plugins")
@config_option
@output_option()
def plugins_command(config_file: Path, output: str) -> None:
    """List installed plugins: their interface, the jobs and offerings that use them, defects.

    Exits with code 1 if a plugin cannot be used or does not keep the contract of plugins.
    """
    offerings, remark = _offerings(config_file)
    backends = [_described(plugin, offerings) for plugin in installed_plugins().values()]
    usernames = [_described(plugin, offerings) for plugin in installed_username_plugins().values()]
    listed = sorted([*backends, *usernames], key=lambda one: (one["kind"], one["name"]))
    if output == "json":
        say(json_text({"plugins": listed, "remark": remark}))
    else:
        for one in listed:
            say("\n".join(_lines(one)))
        say(remark or f"{len(listed)} plugins installed.")
    sys.exit(FAILED if any(one["problems"] for one in listed) else DONE)


def _offerings(path: Path) -> tuple[Sequence[Offering], str]:
    """The usable offerings of the file, and why there are none."""
    if not path.exists():
        return (), f"{path} does not exist, so it is not known what uses them."
    try:
        return load_usable(path).configuration.offerings, ""
    except ConfigurationError as error:
        return (), f"{error}\nso it is not known what uses them."


def _described(
    plugin: Plugin[Backend] | Plugin[UsernameBackend], offerings: Iterable[Offering]
) -> dict[str, Any]:
    interface, problems = _PRESENT, []
    try:
        loaded: type[Backend] | type[UsernameBackend] = plugin.load()
        interface = getattr(loaded, "interface", _PRESENT)
        problems = unkept_promises(loaded)
    except PluginError as error:
        interface, problems = "", [str(error)]
    return {
        "name": plugin.name,
        "kind": plugin.group.noun,
        "distribution": plugin.distribution,
        "version": _version(plugin.distribution),
        "interface": interface,
        "used_by": [*_uses(plugin, offerings)],
        "problems": problems,
    }


def _uses(
    plugin: Plugin[Backend] | Plugin[UsernameBackend], offerings: Iterable[Offering]
) -> Iterator[dict[str, str]]:
    for offering in offerings:
        if plugin.group.settings_key == "backend_settings":
            jobs = [_JOBS[job] for job in Job if offering.backend_for(job) == plugin.name]
        else:
            uses = offering.username_management_backend == plugin.name
            jobs = ["usernames"] if uses else []
        yield from ({"offering": offering.name, "job": job} for job in jobs)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _lines(one: dict[str, Any]) -> Iterator[str]:
    interface = one["interface"] or "cannot be used"
    yield f"{one['kind']} {one['name']}  {one['distribution']} {one['version']}  {interface}"
    for use in one["used_by"]:
        yield f'    {use["job"]} of "{use["offering"]}"'
    for problem in one["problems"]:
        yield f"  ! {problem}"
