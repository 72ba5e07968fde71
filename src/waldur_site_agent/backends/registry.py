"""Finds backends by their entry-point names and opens them with checked settings."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from pydantic import ValidationError

from waldur_site_agent.backends.contract import Backend
from waldur_site_agent.config import ConfigurationError, Problem, problems_of
from waldur_site_agent.model.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

    from waldur_site_agent.backends.contract import BackendSettings
    from waldur_site_agent.config import Offering, Source

GROUP = "waldur_site_agent.backends"


class PluginError(PermanentError):
    """A plugin is installed but cannot be used; the text names its distribution."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A backend that some installed distribution offers under a name."""

    name: str
    distribution: str
    entry_point: EntryPoint

    def load(self) -> type[Backend]:
        """Import the plugin.

        Raises:
            PluginError: the import failed or the name leads to something that is no backend.
        """
        try:
            loaded = self.entry_point.load()
        except Exception as error:  # a plugin may fail in any way; the others go on
            raise PluginError(
                f'backend "{self.name}" of {self.distribution} cannot be loaded: '
                f"{type(error).__name__}: {error}; reinstall or upgrade {self.distribution}"
            ) from error
        if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
            raise PluginError(
                f'"{self.entry_point.value}" of {self.distribution} is not a backend of '
                "waldur-site-agent 2; upgrade the plugin"
            )
        return loaded


def installed_plugins() -> dict[str, Plugin]:
    """Every backend that is installed, by name; nothing is imported yet."""
    plugins = {}
    for entry_point in entry_points(group=GROUP):
        distribution = entry_point.dist.name if entry_point.dist else "an unknown distribution"
        plugins[entry_point.name] = Plugin(entry_point.name, distribution, entry_point)
    return plugins


class Registry:
    """Knows the backends; tests and the demo put ready-made ones beside the installed."""

    def __init__(self, extra: Mapping[str, type[Backend]] | None = None) -> None:
        self._extra = dict(extra or {})
        self._loaded: dict[str, type[Backend]] = {}

    def names(self) -> list[str]:
        """All names under which a backend can be asked for."""
        return sorted({*self._extra, *installed_plugins()})

    def backend_class(self, name: str) -> type[Backend]:
        """The class behind a name.

        Raises:
            PluginError: no such backend is installed, or it cannot be loaded.
        """
        if name in self._extra:
            return self._extra[name]
        if name not in self._loaded:
            plugin = installed_plugins().get(name)
            if plugin is None:
                raise PluginError(
                    f'no backend "{name}" is installed; installed: '
                    f"{', '.join(self.names()) or 'none'}; "
                    f"try: pip install waldur-site-agent-{name}"
                )
            self._loaded[name] = plugin.load()
        return self._loaded[name]

    def settings(
        self, name: str, offering: Offering, source: Source | None, number: int = 0
    ) -> BackendSettings:
        """Check ``backend_settings`` of an offering against the model that the plugin owns.

        Raises:
            ConfigurationError: a key or value is wrong, with its place in the file.
            PluginError: the backend cannot be loaded.
        """
        model = self.backend_class(name).Settings
        try:
            return model.model_validate(offering.backend_settings)
        except ValidationError as error:
            if source is None:
                raise
            at = ("offerings", number, "backend_settings")
            raise ConfigurationError(source.path, problems_of(error, source, model, at)) from None

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
