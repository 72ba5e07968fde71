"""Settings of plugins of version 1: taken as written, and compared with their schemas to warn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from waldur_site_agent.backends import BackendSettings
from waldur_site_agent.model.marketplace import Component

SETTINGS_SCHEMAS = "waldur_site_agent.backend_settings_schemas"
COMPONENT_SCHEMAS = "waldur_site_agent.component_schemas"
_SECRET_NAME = re.compile(r"(?i)password|passwd|secret|token|api_?key|private_?key|access_?key")
_SHORTEST_SECRET = 5
"""Masking shorter ones would make texts unreadable, and protect nothing."""


class V1Settings(BackendSettings):
    """Whatever the file has, unconverted: version 1 only warned of unknown keys."""

    model_config = ConfigDict(extra="allow", str_strip_whitespace=False)

    def as_written(self) -> dict[str, Any]:
        """The mapping of the file."""
        return dict(self.model_extra or {})


def as_number(value: Any) -> int | float:
    """A number as YAML would have read it."""
    number = float(value)
    return int(number) if number.is_integer() else number


def components_as_written(components: Mapping[str, Component]) -> dict[str, dict[str, Any]]:
    """Components as the dictionaries that plugins of version 1 were given, complete."""
    return {name: _component(one) for name, one in components.items()}


def _component(component: Component) -> dict[str, Any]:
    known: dict[str, Any] = {
        "measured_unit": component.measured_unit,
        "unit_factor": as_number(component.unit_factor),
        "accounting_type": component.accounting_type,
        "label": component.label,
    }
    if component.limit is not None:
        known["limit"] = as_number(component.limit)
    return {**component.details, **component.for_plugins, **known}


def schema_warnings(group: str, name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """What the schema of a plugin says against its settings; it only warns, as in version 1."""
    schema = _schema(group, name)
    if schema is None:
        return
    try:
        schema.model_validate(values)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            place = ".".join(str(step) for step in each["loc"])
            yield f"{place}: {each['msg']}"


def _schema(group: str, name: str) -> type[BaseModel] | None:
    found = next((e for e in entry_points(group=group) if e.name == name.lower()), None)
    loaded = _loaded(found) if found is not None else None
    return loaded if isinstance(loaded, type) and issubclass(loaded, BaseModel) else None


def _loaded(entry_point: EntryPoint) -> object:
    try:
        loaded: object = entry_point.load()
    except Exception:  # noqa: BLE001 - a schema only warns; without it nothing is checked
        return None
    return loaded


def secrets_in(values: Any, *, secret: bool = False) -> Iterator[str]:
    """The values of settings whose names say that they are secret."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from secrets_in(value, secret=secret or bool(_SECRET_NAME.search(str(key))))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from secrets_in(value, secret=secret)
    elif secret and isinstance(values, str) and len(values) >= _SHORTEST_SECRET:
        yield values


def without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a plugin says of a resource without what its name says is secret: it is logged."""
    return {
        str(key): without_secrets(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not _SECRET_NAME.search(str(key))
    }
