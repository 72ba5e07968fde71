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
    from waldur_site_agent.config import Offering, Source

__all__ = ["Plugin", "PluginError", "Registry", "check_backends", "installed_plugins"]


def _is_backend(loaded: object) -> TypeGuard[type[Backend]]:
    return isinstance(loaded, type) and issubclass(loaded, Backend)


BACKENDS = PluginGroup("waldur_site_agent.backends", "backend", _is_backend)


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


def check_backends(
    registry: Registry,
    offerings: tuple[Offering, ...],
    names: Mapping[str, set[str]],
    source: Source,
) -> None:
    """Check that every backend named for an offering is installed and likes its settings.

    Args:
        registry: where backends are looked up.
        offerings: all offerings of the file, in its order.
        names: for each offering's name, the backends that will be used for it.
        source: the file, for the places in messages.

    Raises:
        ConfigurationError: with every problem of every offering.
    """
    problems: list[Problem] = []
    for number, offering in enumerate(offerings):
        for name in sorted(names.get(offering.name, ())):
            try:
                registry.settings(name, offering, source, number)
            except ConfigurationError as error:
                problems += [p for p in error.problems if p not in problems]
            except PluginError as error:
                at = ("offerings", number)
                problems.append(Problem(source.line(at), at, str(error)))
    if problems:
        raise ConfigurationError(source.path, problems)
