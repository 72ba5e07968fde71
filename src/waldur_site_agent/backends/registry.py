"""Finds backends by their entry-point names and opens them with checked settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from waldur_site_agent.backends.contract import Backend
from waldur_site_agent.backends.plugins import (
    Plugin,
    PluginClasses,
    PluginError,
    PluginGroup,
    checked_settings,
    plugins_of,
)
from waldur_site_agent.config import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.backends.contract import BackendSettings
    from waldur_site_agent.config import Job, Offering, Source
    from waldur_site_agent.config.source import Place

__all__ = ["Plugin", "PluginError", "Registry", "backend_problems", "installed_plugins"]


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
