"""Backend and username backend plugins: found by entry point, imported only when used."""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar

from pydantic import ValidationError

from waldur_site_agent.backends.backend_settings import BackendSettings
from waldur_site_agent.backends.contract import HOOKS, Backend
from waldur_site_agent.backends.usernames import NoUsernames, UsernameBackend
from waldur_site_agent.config import ConfigurationError, Job, Offering, Problem, Source, problems_of
from waldur_site_agent.config.source import Place
from waldur_site_agent.config.switching import Finding, differing, ignored, refused, translate
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import backend_components

Contract = TypeVar("Contract", bound=Backend | UsernameBackend)

ADAPTERS = "waldur_site_agent.plugin_adapters"
"""The entry-point group of what runs plugins of other interfaces."""

NO_NAMES = "base"
"""The default of ``username_management_backend``; works without any plugin."""


class PluginError(PermanentError):
    """A plugin is installed but cannot be used; the text names its distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginGroup(Generic[Contract]):
    """One kind of plugin: where it is registered, configured and checked."""

    entry_points: str
    """The entry-point group."""
    noun: str
    """What messages call a plugin of this kind, such as ``backend``."""
    settings_key: str
    """The key of an offering that holds the settings of the plugin."""
    settings_of: Callable[[Offering], Mapping[str, object]]
    """The settings under that key."""
    fits: Callable[[object], TypeGuard[type[Contract]]]
    """Whether an entry point leads to a class of this kind."""
    distributions: Mapping[str, str]
    """The distributions of the agent's own plugins, by the plugin's name."""
    built_in: Mapping[str, type[Contract]] = field(default_factory=dict)
    """The classes that are used where no plugin of their name is installed."""


@dataclass(frozen=True, slots=True)
class Plugin(Generic[Contract]):
    """A class that an installed distribution offers under a name."""

    name: str
    distribution: str
    group: PluginGroup[Contract]
    entry_point: EntryPoint

    def load(self) -> type[Contract]:
        """Import the plugin.

        Raises:
            PluginError: The import failed, or the entry point leads to something else.
        """
        noun = self.group.noun
        try:
            loaded: object = self.entry_point.load()
            if _is_of_version_1(loaded):
                loaded = self._adapted()
        except PermanentError as error:
            raise PluginError(str(error)) from error
        except Exception as error:  # a plugin may fail in any way; the others go on
            if _lacks_version_1(error):
                return self._load_adapted(error)
            raise self._not_loaded(error) from error
        if not self.group.fits(loaded):
            raise PluginError(
                f'"{self.entry_point.value}" of {self.distribution} is not a {noun} of '
                "waldur-site-agent 2; upgrade the plugin"
            )
        return loaded

    def _load_adapted(self, cause: Exception) -> type[Contract]:
        """The plugin, written for version 1, behind an adapter."""
        try:
            loaded = self._adapted()
        except PermanentError as error:
            raise PluginError(str(error)) from cause
        except Exception as error:  # as any plugin, it may fail in any way
            raise self._not_loaded(error) from error
        if not self.group.fits(loaded):
            raise PluginError(
                f'"{self.entry_point.value}" of {self.distribution} is no {self.group.noun}; '
                "correct the configuration"
            )
        return loaded

    def _adapted(self) -> object:
        adapters = sorted(entry_points(group=ADAPTERS), key=lambda each: each.name)
        if not adapters:
            raise PluginError(
                f'{self.group.noun} "{self.name}" of {self.distribution} was written for version 1 '
                "of the agent; install waldur-site-agent-v1-plugins from where the agent came "
                "from: it runs such plugins unchanged"
            )
        return adapters[0].load()(self.entry_point, self.distribution)

    def _not_loaded(self, error: Exception) -> PluginError:
        return PluginError(
            f'{self.group.noun} "{self.name}" of {self.distribution} cannot be loaded: '
            f"{type(error).__name__}: {error}; reinstall or upgrade {self.distribution}"
        )


_V1_MODULES = ("waldur_site_agent.backend", "waldur_site_agent.common")
_V1_BASES = frozenset({"BaseBackend", "AbstractUsernameManagementBackend"})


def _lacks_version_1(error: Exception) -> bool:
    """Whether an import failed because a module of version 1 does not exist any more."""
    module = error.name if isinstance(error, ModuleNotFoundError) else None
    return (
        module is not None
        and module.startswith(_V1_MODULES)
        and (module in _V1_MODULES or module.startswith(tuple(f"{each}." for each in _V1_MODULES)))
    )


def _is_of_version_1(loaded: object) -> bool:
    """Whether a class inherits from one of version 1."""
    return isinstance(loaded, type) and any(
        base.__name__ in _V1_BASES and not issubclass(base, Backend | UsernameBackend)
        for base in loaded.__mro__
    )


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """Settings that a plugin accepts."""

    settings: BackendSettings
    without_effect: tuple[Problem, ...] = ()
    """Keys of version 1 that are not needed any more, each with the reason."""
    differences: tuple[Problem, ...] = ()
    """What a site that comes from version 1 may notice."""


class PluginRegistry(Generic[Contract]):
    """The plugins of one kind, each imported once."""

    def __init__(
        self, group: PluginGroup[Contract], extra: Mapping[str, type[Contract]] | None = None
    ) -> None:
        """Args: ``extra`` adds classes under names of their own, for tests and the demo."""
        self._group = group
        self._extra = dict(extra or {})
        self._loaded: dict[str, type[Contract]] = {}

    @property
    def settings_key(self) -> str:
        """The key of an offering that holds the settings of these plugins."""
        return self._group.settings_key

    def names(self) -> list[str]:
        """All names that an offering may use."""
        return sorted({*self._group.built_in, *self._installed()})

    def backend_class(self, name: str) -> type[Contract]:
        """The class of a name.

        Raises:
            PluginError: No such plugin is installed, or it cannot be loaded.
        """
        if name in self._extra:
            return self._extra[name]
        if name not in self._loaded:
            plugin = _installed_plugins(self._group).get(name)
            if plugin is None and name in self._group.built_in:
                return self._group.built_in[name]
            if plugin is None:
                raise PluginError(self._not_installed(name))
            self._loaded[name] = plugin.load()
        return self._loaded[name]

    def settings(
        self, name: str, offering: Offering, source: Source | None, number: int = 0
    ) -> BackendSettings:
        """Check an offering's settings for a plugin against the model that the plugin owns.

        Args:
            name: The plugin.
            offering: The offering.
            source: The file, for the places in messages.
            number: The position of the offering in the file, from 0.

        Raises:
            ConfigurationError: A key or value is wrong, with its place in the file.
            PluginError: The plugin is not installed or cannot be loaded, or its own check failed.
        """
        return self.read_settings(name, self._group.settings_of(offering), source, number).settings

    def read_settings(
        self, name: str, written: Mapping[str, object], source: Source | None, number: int = 0
    ) -> ReadSettings:
        """As :meth:`settings`, for settings as they are written in the file."""
        model = self.backend_class(name).Settings
        key = self._group.settings_key
        at: Place = ("offerings", number, key)
        given, findings = self.translated(name, written, source, number)
        problems = refused(findings, source)
        try:
            settings = model.model_validate(given)
        except ValidationError as error:
            if source is None:
                raise
            problems += problems_of(error, source, model, at)
            raise ConfigurationError(source.path, problems) from None
        except Exception as error:  # a plugin may fail in any way; the other offerings go on
            raise PluginError(
                f"its plugin failed while checking {key}: {type(error).__name__}: {error}; "
                "report this to the authors of the plugin"
            ) from error
        if source is None:
            if problems:
                raise PluginError("; ".join(problem.message for problem in problems))
            return ReadSettings(settings)
        if problems:
            raise ConfigurationError(source.path, problems)
        differences = differing(findings, source)
        differences += [
            each.remark(at, source) for each in model.version_1_defaults if each.key not in given
        ]
        return ReadSettings(settings, tuple(ignored(findings, source)), tuple(differences))

    def translated(
        self, name: str, written: Mapping[str, object], source: Source | None, number: int = 0
    ) -> tuple[dict[str, Any], list[Finding]]:
        """Settings in the present spelling, and what was found of version 1.

        Raises:
            PluginError: The plugin is not installed or cannot be loaded.
        """
        given: dict[str, Any] = copy.deepcopy(dict(written))
        at: Place = ("offerings", number, self._group.settings_key)
        rows = self.backend_class(name).Settings.version_1
        return given, translate(given, rows, at, source)

    def _installed(self) -> list[str]:
        return sorted({*self._extra, *_installed_plugins(self._group)})

    def _not_installed(self, name: str) -> str:
        """What to do about a name for which no plugin is installed.

        Only existing packages are suggested: a made-up name would invite people to install
        whatever somebody publishes under it.
        """
        noun, installed, ours = self._group.noun, self._installed(), self._group.distributions
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


class Registry(PluginRegistry[Backend]):
    """The backends."""

    def __init__(self, extra: Mapping[str, type[Backend]] | None = None) -> None:
        super().__init__(_BACKENDS, extra)

    def open(self, name: str, settings: BackendSettings, offering: Offering) -> Backend:
        """Create the backend of an offering; nothing is read or started yet."""
        return self.backend_class(name)(settings, backend_components(offering.components))


class UsernameRegistry(PluginRegistry[UsernameBackend]):
    """The username backends."""

    def __init__(self, extra: Mapping[str, type[UsernameBackend]] | None = None) -> None:
        super().__init__(_USERNAME_BACKENDS, extra)

    def open(
        self, offering: Offering, source: Source | None = None, number: int = 0
    ) -> UsernameBackend:
        """Create the username backend of an offering; nothing is read or started yet.

        Raises:
            ConfigurationError, PluginError: As :meth:`settings`.
        """
        name = offering.username_management_backend
        return self.backend_class(name)(self.settings(name, offering, source, number))


def installed_plugins() -> dict[str, Plugin[Backend]]:
    """The installed backends, by name; nothing is imported yet."""
    return _installed_plugins(_BACKENDS)


def installed_username_plugins() -> dict[str, Plugin[UsernameBackend]]:
    """The installed username backends, by name; nothing is imported yet."""
    return _installed_plugins(_USERNAME_BACKENDS)


def unkept_promises(loaded: type[Backend] | type[UsernameBackend]) -> list[str]:
    """What a class lacks of the contract, as far as it shows without a backend to try it with.

    The conformance suite (``waldur_site_agent.backends.testing``) finds out the rest.
    """
    abstract = sorted(getattr(loaded, "__abstractmethods__", ()))
    problems = [f"{loaded.__name__} does not implement {name}()" for name in abstract]
    if not issubclass(loaded, Backend):
        return problems
    capabilities, supports = loaded.capabilities, loaded.supports
    if loaded.apply is Backend.apply:
        problems += [
            f"{loaded.__name__} supports {action.__name__}, but does not implement "
            f"{HOOKS[action]}()"
            for action in sorted(supports & HOOKS.keys(), key=lambda each: each.__name__)
            if getattr(loaded, HOOKS[action]) is getattr(Backend, HOOKS[action])
        ]
    for says, method in (("finishes_later", "progress"), ("needs_facts", "hear")):
        if getattr(capabilities, says) and getattr(loaded, method) is getattr(Backend, method):
            problems.append(f"{loaded.__name__} {says}, but does not implement {method}()")
    return problems


def backend_problems(
    registry: Registry, offering: Offering, job: Job, source: Source
) -> list[Problem]:
    """Why the backend that an offering names for a job cannot be used; empty if it can.

    Args:
        registry: The backends.
        offering: An offering of the file.
        job: The job; nothing is checked if the offering does not use it.
        source: The file, for the places in messages.
    """
    name = offering.backend_for(job)
    # Older files name one backend for all jobs.
    return _problems(registry, name, offering, source, job.value, "backend_type") if name else []


def username_backend_problems(
    registry: UsernameRegistry, offering: Offering, source: Source
) -> list[Problem]:
    """Why the username backend of an offering cannot be used; empty if it can.

    Args:
        registry: The username backends.
        offering: An offering of the file.
        source: The file, for the places in messages.
    """
    name = offering.username_management_backend
    return _problems(registry, name, offering, source, "username_management_backend")


def problems_of_entry(source: Source, number: int) -> Iterator[Problem]:
    """What is wrong with the settings of plugins in an entry of ``offerings``, valid or not.

    Args:
        source: The file.
        number: The position of the entry in the file, from 0.
    """
    entries: Any = source.content["offerings"]
    entry = entries[number]
    if not isinstance(entry, dict):
        return
    jobs = [job.value for job in Job]
    named = [entry.get(key) for key in jobs]
    if not any(key in entry for key in jobs):
        named = [entry.get("backend_type")]
    yield from _problems_of_settings(Registry(), dict.fromkeys(named), source, number)
    names = (entry.get("username_management_backend"),)
    yield from _problems_of_settings(UsernameRegistry(), names, source, number)


def _problems_of_settings(
    registry: PluginRegistry[Contract], names: Iterable[object], source: Source, number: int
) -> Iterator[Problem]:
    entries: Any = source.content["offerings"]
    written = entries[number].get(registry.settings_key)
    found: dict[Problem, None] = {}
    for name in names:
        if not isinstance(name, str) or not isinstance(written, dict):
            continue
        try:
            registry.read_settings(name.strip(), written, source, number)
        except ConfigurationError as error:
            found.update(dict.fromkeys(error.problems))
        except PluginError:
            continue  # reported once the entry itself is valid
    yield from found


def _problems(
    registry: PluginRegistry[Contract], name: str, offering: Offering, source: Source, *keys: str
) -> list[Problem]:
    """Check a plugin and its settings; ``keys`` are those that may name the plugin."""
    number = source.offering_number(offering.name)
    try:
        registry.settings(name, offering, source, number)
    except ConfigurationError as error:
        return list(error.problems)
    except PluginError as error:
        places: list[Place] = [("offerings", number, key) for key in keys]
        at = next((place for place in places if source.lines.get(place) is not None), places[-1])
        return [Problem(source.line(at), at, str(error))]
    return []


def _installed_plugins(group: PluginGroup[Contract]) -> dict[str, Plugin[Contract]]:
    found = _found(entry_points, group.entry_points, _places_of_distributions())
    return {
        entry_point.name: Plugin(entry_point.name, distribution, group, entry_point)
        for entry_point, distribution in found
    }


@lru_cache(maxsize=16)
def _found(
    find: Callable[..., Iterable[EntryPoint]],
    group: str,
    places: tuple[tuple[str, int], ...],  # noqa: ARG001 - part of the key
) -> tuple[tuple[EntryPoint, str], ...]:
    """The entry points and their distributions; each command asks for them several times."""
    return tuple(
        (each, each.dist.name if each.dist else "an unknown distribution")
        for each in find(group=group)
    )


def _places_of_distributions() -> tuple[tuple[str, int], ...]:
    """Where distributions are looked for, with the time of the last that was installed there."""
    return tuple((place, _changed_at(place)) for place in sys.path)


def _changed_at(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


def _is_backend(loaded: object) -> TypeGuard[type[Backend]]:
    return isinstance(loaded, type) and issubclass(loaded, Backend)


def _is_username_backend(loaded: object) -> TypeGuard[type[UsernameBackend]]:
    return isinstance(loaded, type) and issubclass(loaded, UsernameBackend)


_BACKENDS = PluginGroup(
    entry_points="waldur_site_agent.backends",
    noun="backend",
    settings_key="backend_settings",
    settings_of=lambda offering: offering.backend_settings,
    fits=_is_backend,
    distributions={"moab": "waldur-site-agent-moab", "slurm": "waldur-site-agent-slurm"},
)
_USERNAME_BACKENDS = PluginGroup(
    entry_points="waldur_site_agent.username_management_backends",
    noun="username backend",
    settings_key="username_management_settings",
    settings_of=lambda offering: offering.username_management_settings,
    fits=_is_username_backend,
    distributions=dict.fromkeys(
        (NO_NAMES, "template"), "waldur-site-agent-basic-username-management"
    ),
    built_in={NO_NAMES: NoUsernames},
)
