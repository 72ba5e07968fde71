"""Calls the methods of a plugin in the form that its version of the interface had.

Version 0.7 passed ids where 1.0 passes resources, and knew fewer arguments; a plugin may override
methods of either. What it accepts is read from its own signatures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from waldur_site_agent_v1_plugins.interface.backend.backends import BaseBackend
from waldur_site_agent_v1_plugins.interface.backend.exceptions import (
    BackendError,
    UserNotProvisionedError,
)
from waldur_site_agent_v1_plugins.interface.backend.structures import BackendResourceInfo

Members = tuple[frozenset[str], Mapping[str, Exception]]
"""Those served, and why others failed."""


@dataclass(frozen=True, slots=True)
class V1Plugin:
    """A backend class of version 1, and where it came from."""

    name: str
    distribution: str
    cls: type[BaseBackend]

    @property
    def creates_by_itself(self) -> bool:
        """Whether it replaces the whole creation, so that it may give ids of its own."""
        ways = ("create_resource_with_id", "create_resource", "_create_resource_in_backend")
        return any(self._overrides(way) for way in ways)

    @property
    def takes_ids(self) -> bool:
        """Whether members are added by id, as in version 0.7."""
        methods = ("add_user", "add_users_to_resource", "remove_user", "remove_users_from_resource")
        return any(
            "resource_backend_id" in inspect.signature(getattr(self.cls, method)).parameters
            for method in methods
            if self._overrides(method)
        )

    def _overrides(self, method: str) -> bool:
        return getattr(self.cls, method) is not getattr(BaseBackend, method)

    def ping(self, instance: BaseBackend) -> bool:
        """Whether the backend answers; raises where the plugin can say why not."""
        return bool(_called(instance.ping, raise_exception=True))

    def pull(
        self, instance: BaseBackend, resources: list[Any]
    ) -> Mapping[str, tuple[Any, BackendResourceInfo]]:
        """What exists of these resources; a failed read raises."""
        with instance._strictly(True):
            found = _called(instance.pull_resources, resources, include_usage=False, strict=True)
        return {name: pair for name, pair in (found or {}).items() if pair and pair[1] is not None}

    def create(
        self, instance: BaseBackend, resource: Any, backend_id: str, context: dict[str, Any]
    ) -> BackendResourceInfo:
        """Create a resource in the way that the plugin overrides."""
        if self._overrides("create_resource_with_id"):
            return instance.create_resource_with_id(resource, backend_id, context)
        if self._overrides("create_resource"):
            made: BackendResourceInfo = _with_context(instance.create_resource, resource, context)
            return made
        if self._overrides("_create_resource_in_backend"):
            _with_context(instance._pre_create_resource, resource, context)
            name = instance._create_resource_in_backend(resource)
            limits = instance._setup_resource_limits(name, resource)
            info = BackendResourceInfo(backend_id=name, limits=limits)
            instance.post_create_resource(info, resource, context)
            return info
        return instance.create_resource_with_id(resource, backend_id, context)

    def set_limits(
        self, instance: BaseBackend, resource: Any, backend_id: str, limits: dict[str, Any]
    ) -> str:
        """Set limits; the plugin's reference if it does so later."""
        if instance.has_prepaid_components():
            resource.limits.additional_properties.update(limits)
            instance._setup_resource_limits(backend_id, resource)
            return ""
        return str(instance.set_resource_limits(backend_id, limits) or "")

    def delete(self, instance: BaseBackend, resource: Any, project_slug: str) -> str:
        """Delete a resource; the plugin's reference if it does so later."""
        return str(_called(instance.delete_resource, resource, project_slug=project_slug) or "")

    def add(
        self,
        instance: BaseBackend,
        resource: Any,
        backend_id: str,
        names: Iterable[str],
        arguments: Mapping[str, Any],
    ) -> Members:
        """Add members."""
        names = list(names)
        first = backend_id if self.takes_ids else resource
        umask = instance.backend_settings.get("default_homedir_umask", "0077")
        arguments = (
            {"homedir_umask": umask} if self.takes_ids else {**arguments, "homedir_umask": umask}
        )
        if self.takes_ids and not self._overrides("add_users_to_resource"):
            return _one_by_one(names, lambda n: _called(instance.add_user, first, n, **arguments))
        answer = _called(instance.add_users_to_resource, first, set(names), **arguments)
        failed = dict(getattr(answer, "failed", None) or {})
        if not answer and not failed and self._overrides("add_users_to_resource"):
            return frozenset(
                names
            ), {}  # it grants access in another way, and has nobody to tell of
        return frozenset(answer or ()), failed

    def remove(
        self,
        instance: BaseBackend,
        resource: Any,
        backend_id: str,
        names: Iterable[str],
        arguments: Mapping[str, Any],
    ) -> Members:
        """Remove members."""
        names = list(names)
        first = backend_id if self.takes_ids else resource
        known = {key: arguments[key] for key in ("user_cuids", "user_roles") if key in arguments}
        if self.takes_ids:
            known = {}
        if self.takes_ids and not self._overrides("remove_users_from_resource"):
            served, failed = _one_by_one(names, lambda n: _removed(instance, first, n))
            return served, failed
        answer = _called(instance.remove_users_from_resource, first, set(names), **known)
        if answer is None:
            return frozenset(names), {}
        return frozenset(answer), dict(getattr(answer, "failed", None) or {})

    def current_usage(
        self, instance: BaseBackend, resource: Any, backend_id: str
    ) -> Mapping[str, Mapping[str, Any]]:
        """Usage of the current month, in Waldur's units."""
        with instance._strictly(True):
            info = instance.pull_resource(resource)
        if info is not None and info.usage:
            return info.usage
        return instance._get_usage_report([backend_id]).get(backend_id, {})

    def past_usage(
        self, instance: BaseBackend, resource: Any, backend_id: str, month: datetime
    ) -> Mapping[str, Mapping[str, Any]]:
        """Usage of a past month; empty if the plugin cannot tell it."""
        found = _called(
            instance.get_usage_report_for_period,
            [backend_id],
            month.year,
            month.month,
            waldur_resource=resource,
        )
        usage: Mapping[str, Mapping[str, Any]] = (found or {}).get(backend_id, {})
        return usage


def _removed(instance: BaseBackend, first: Any, name: str) -> bool:
    instance.remove_user(first, name)
    return True


def _one_by_one(names: Iterable[str], call: Callable[[str], Any]) -> Members:
    served: set[str] = set()
    failed: dict[str, Exception] = {}
    for name in names:
        try:
            if call(name):
                served.add(name)
        except UserNotProvisionedError:
            continue
        except BackendError as error:
            failed[name] = error
    return frozenset(served), failed


def _with_context(method: Callable[..., Any], resource: Any, context: dict[str, Any]) -> Any:
    """Call a method that may not know the context of users yet."""
    takes = inspect.signature(method).parameters
    known = len(takes) > 1 or any(p.kind is p.VAR_POSITIONAL for p in takes.values())
    return method(resource, context) if known else method(resource)


def _called(method: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    """Call a method with those of the named arguments that it knows."""
    parameters = inspect.signature(method).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return method(*positional, **named)
    return method(*positional, **{key: named[key] for key in named if key in parameters})
