"""Finds plugins by their entry-point names; imports one only when it is asked for."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeGuard, TypeVar

from pydantic import ValidationError

from waldur_site_agent.backends.contract import (
    Backend,
    BackendSettings,
    NoUsernames,
    UsernameBackend,
)
from waldur_site_agent.config import ConfigurationError, Job, Offering, Problem, Source, problems_of
from waldur_site_agent.config.source import Place
from waldur_site_agent.model.errors import PermanentError

Contract = TypeVar("Contract")


class PluginError(PermanentError):
    """A plugin is installed but cannot be used; the text names its distribution."""


@dataclass(frozen=True, slots=True)
class PluginGroup(Generic[Contract]):
    """One kind of plugin: where it is announced and how it is told from something else."""

    entry_points: str
    """The entry-point group."""
    noun: str
    """What messages call a plugin of this kind, such as ``backend``."""
    fits: Callable[[object], TypeGuard[type[Contract]]]
    """Whether what an entry point leads to is a class of this kind."""
    distributions: Mapping[str, str] = field(default_factory=dict)
    """The distributions of plugins that belong to the agent, by the plugin's name."""


@dataclass(frozen=True, slots=True)
class Plugin(Generic[Contract]):
    """A class that some installed distribution offers under a name."""

    name: str
    distribution: str
    group: PluginGroup[Contract]
    entry_point: EntryPoint

    def load(self) -> type[Contract]:
        """Import the plugin.

        Raises:
            PluginError: the import failed or the name leads to something of another kind.
        """
        noun = self.group.noun
        try:
            loaded: object = self.entry_point.load()
        except Exception as error:  # a plugin may fail in any way; the others go on
            raise PluginError(
                f'{noun} "{self.name}" of {self.distribution} cannot be loaded: '
                f"{type(error).__name__}: {error}; reinstall or upgrade {self.distribution}"
            ) from error
        if not self.group.fits(loaded):
            raise PluginError(
                f'"{self.entry_point.value}" of {self.distribution} is not a {noun} of '
                "waldur-site-agent 2; upgrade the plugin"
            )
        return loaded


def plugins_of(group: PluginGroup[Contract]) -> dict[str, Plugin[Contract]]:
    """Every plugin of a kind that is installed, by name; nothing is imported yet."""
    plugins = {}
    for entry_point in entry_points(group=group.entry_points):
        distribution = entry_point.dist.name if entry_point.dist else "an unknown distribution"
        plugins[entry_point.name] = Plugin(entry_point.name, distribution, group, entry_point)
    return plugins


class PluginClasses(Generic[Contract]):
    """The classes of one kind of plugin, each imported once, beside ready-made ones."""

    def __init__(
        self, group: PluginGroup[Contract], extra: Mapping[str, type[Contract]] | None = None
    ) -> None:
        self._group = group
        self._extra = dict(extra or {})
        self._loaded: dict[str, type[Contract]] = {}

    def names(self) -> list[str]:
        """All names under which a plugin can be asked for."""
        return sorted({*self._extra, *plugins_of(self._group)})

    def find(self, name: str) -> type[Contract]:
        """The class behind a name.

        Raises:
            PluginError: no such plugin is installed, or it cannot be loaded.
        """
        if name in self._extra:
            return self._extra[name]
        if name not in self._loaded:
            plugin = plugins_of(self._group).get(name)
            if plugin is None:
                raise PluginError(self._not_installed(name))
            self._loaded[name] = plugin.load()
        return self._loaded[name]

    def _not_installed(self, name: str) -> str:
        """What to do about a name that nothing is installed under.

        Packages are named only where there is such a package: a made-up name is an invitation to
        install whatever somebody publishes under it.
        """
        noun, installed, ours = self._group.noun, self.names(), self._group.distributions
        text = f'no {noun} "{name}" is installed; '
        known = {each.lower(): each for each in (*ours, *installed)}
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
        nearest = known[near[0]] if near else ""
        if nearest and nearest != name:
            text += f'did you mean "{nearest}"? '
        text += f"installed: {', '.join(installed) or 'none'}"
        if nearest and nearest not in installed:
            text += f"; install {ours[nearest]} from where the agent came from"
        elif not nearest:
            text += f"; a plugin that provides it must be installed into {sys.prefix}"
        return text


def checked_settings(
    model: type[BackendSettings], values: Mapping[str, object], source: Source | None, at: Place
) -> BackendSettings:
    """Check what the file says at a place against the model that a plugin owns.

    Raises:
        ConfigurationError: a key or value is wrong, with its place in the file.
        PluginError: the plugin's own check of them failed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        if source is None:
            raise
        raise ConfigurationError(source.path, problems_of(error, source, model, at)) from None
    except Exception as error:  # a plugin may fail in any way; the other offerings go on
        raise PluginError(
            f"its plugin failed while checking {at[-1] if at else 'the settings'}: "
            f"{type(error).__name__}: {error}; report this to the authors of the plugin"
        ) from error


def _is_backend(loaded: object) -> TypeGuard[type[Backend]]:
    return isinstance(loaded, type) and issubclass(loaded, Backend)


BACKENDS = PluginGroup(
    "waldur_site_agent.backends",
    "backend",
    _is_backend,
    {"moab": "waldur-site-agent-moab", "slurm": "waldur-site-agent-slurm"},
)


def installed_plugins() -> dict[str, Plugin[Backend]]:
    """Every backend that is installed, by name; nothing is imported yet."""
    return plugins_of(BACKENDS)


class Registry:
    """Knows the backends; tests and the demo put ready-made ones beside the installed."""

    def __init__(self, extra: Mapping[str, type[Backend]] | None = None) -> None:
        self._classes = PluginClasses(BACKENDS, extra)

    def names(self) -> list[str]:
        """All names under which a backend can be asked for."""
        return self._classes.names()

    def backend_class(self, name: str) -> type[Backend]:
        """The class behind a name.

        Raises:
            PluginError: no such backend is installed, or it cannot be loaded.
        """
        return self._classes.find(name)

    def settings(
        self, name: str, offering: Offering, source: Source | None, number: int = 0
    ) -> BackendSettings:
        """Check ``backend_settings`` of an offering against the model that the plugin owns.

        Raises:
            ConfigurationError: a key or value is wrong, with its place in the file.
            PluginError: the backend cannot be loaded.
        """
        model = self.backend_class(name).Settings
        at = ("offerings", number, "backend_settings")
        return checked_settings(model, offering.backend_settings, source, at)

    def open(self, name: str, settings: BackendSettings, offering: Offering) -> Backend:
        """Make the backend of an offering; nothing is read or started yet."""
        return self.backend_class(name)(settings, offering.components)


def backend_problems(
    registry: Registry, offering: Offering, job: Job, source: Source
) -> list[Problem]:
    """Why the backend that an offering names for a job cannot be used; empty where it can.

    Args:
        registry: where backends are looked up.
        offering: an offering of the file.
        job: the job; nothing is checked where the offering does not have it done.
        source: the file, for the places in messages.
    """
    name = offering.backend_for(job)
    if not name:
        return []
    number = source.offering_number(offering.name)
    try:
        registry.settings(name, offering, source, number)
    except ConfigurationError as error:
        return list(error.problems)
    except PluginError as error:
        at: Place = ("offerings", number, job.value)
        if source.lines.get(at) is None:  # an older file that names one backend for every job
            at = ("offerings", number, "backend_type")
        return [Problem(source.line(at), at, str(error))]
    return []


NO_NAMES = "base"
"""The default of ``username_management_backend``; works without any plugin."""


def _is_username_backend(loaded: object) -> TypeGuard[type[UsernameBackend]]:
    return isinstance(loaded, type) and issubclass(loaded, UsernameBackend)


USERNAME_BACKENDS = PluginGroup(
    "waldur_site_agent.username_management_backends",
    "username backend",
    _is_username_backend,
    dict.fromkeys((NO_NAMES, "template"), "waldur-site-agent-basic-username-management"),
)


def installed_username_plugins() -> dict[str, Plugin[UsernameBackend]]:
    """Every username backend that is installed, by name; nothing is imported yet."""
    return plugins_of(USERNAME_BACKENDS)


class UsernameRegistry:
    """Knows the username backends; tests put ready-made ones beside the installed."""

    def __init__(self, extra: Mapping[str, type[UsernameBackend]] | None = None) -> None:
        self._classes = PluginClasses(USERNAME_BACKENDS, extra)

    def names(self) -> list[str]:
        """All names under which a username backend can be asked for."""
        return sorted({NO_NAMES, *self._classes.names()})

    def backend_class(self, name: str) -> type[UsernameBackend]:
        """The class behind a name.

        Raises:
            PluginError: no such backend is installed, or it cannot be loaded.
        """
        if name == NO_NAMES and name not in self._classes.names():
            return NoUsernames
        return self._classes.find(name)

    def settings(
        self, offering: Offering, source: Source | None, number: int = 0
    ) -> BackendSettings:
        """Check ``username_management_settings`` against the model that the plugin owns.

        Args:
            offering: the offering, which also names the backend.
            source: the file, for the places in messages.
            number: the place of the offering in the file, from 0.

        Raises:
            ConfigurationError: a key or value is wrong, with its place in the file.
            PluginError: the backend is not installed or cannot be loaded.
        """
        model = self.backend_class(offering.username_management_backend).Settings
        at = ("offerings", number, "username_management_settings")
        return checked_settings(model, offering.username_management_settings, source, at)

    def open(
        self, offering: Offering, source: Source | None = None, number: int = 0
    ) -> UsernameBackend:
        """Make the username backend of an offering; nothing is read or started yet.

        Raises:
            ConfigurationError, PluginError: as :meth:`settings`.
        """
        settings = self.settings(offering, source, number)
        return self.backend_class(offering.username_management_backend)(settings)


def username_backend_problems(
    registry: UsernameRegistry, offering: Offering, source: Source
) -> list[Problem]:
    """Why the username backend of an offering cannot be used; empty where it can.

    Args:
        registry: where the backends are looked up.
        offering: an offering of the file.
        source: the file again, for the places in messages.
    """
    number = source.offering_number(offering.name)
    try:
        registry.settings(offering, source, number)
    except ConfigurationError as error:
        return list(error.problems)
    except PluginError as error:
        at = ("offerings", number, "username_management_backend")
        return [Problem(source.line(at), at, str(error))]
    return []
