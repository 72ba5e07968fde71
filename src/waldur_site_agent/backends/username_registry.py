"""Finds username backends by their entry-point names and opens them with checked settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from waldur_site_agent.backends.plugins import (
    PluginClasses,
    PluginError,
    PluginGroup,
    checked_settings,
    plugins_of,
)
from waldur_site_agent.backends.usernames import NoUsernames, UsernameBackend
from waldur_site_agent.config import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.backends.contract import BackendSettings
    from waldur_site_agent.backends.plugins import Plugin
    from waldur_site_agent.config import Offering, Source

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
