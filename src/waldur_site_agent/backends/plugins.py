"""Finds plugins by their entry-point names; imports one only when it is asked for."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import ValidationError

from waldur_site_agent.config import ConfigurationError, problems_of
from waldur_site_agent.model.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint
    from typing import TypeGuard

    from waldur_site_agent.backends.contract import BackendSettings
    from waldur_site_agent.config import Source
    from waldur_site_agent.config.source import Place

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
