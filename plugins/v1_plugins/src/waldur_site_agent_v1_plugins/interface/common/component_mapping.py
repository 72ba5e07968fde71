"""Stands for ``waldur_site_agent.common.component_mapping``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TargetMapping:
    """A component of the other side, and how many of it stand for one of ours."""

    target: str
    factor: float = 1.0


@dataclass(frozen=True)
class ReverseMapping:
    """A component of ours, and how many of the other side stand for one of it."""

    source: str
    factor: float = 1.0


class ComponentMapper:
    """Converts limits to the components of another system, and its usage back."""

    def __init__(self, components: Mapping[str, Mapping[str, Any]]) -> None:
        self._components = {name: dict(one) for name, one in components.items()}
        self._targets = {
            name: [
                TargetMapping(target, _factor(settings))
                for target, settings in (one.get("target_components") or {}).items()
            ]
            for name, one in self._components.items()
        }

    @property
    def is_passthrough(self) -> bool:
        """Whether no component is converted."""
        return not any(self._targets.values())

    @property
    def source_components(self) -> set[str]:
        """Our components."""
        return set(self._components)

    @property
    def target_components(self) -> set[str]:
        """Those of the other side."""
        if self.is_passthrough:
            return self.source_components
        return {each.target for targets in self._targets.values() for each in targets}

    def convert_limits_to_target(self, limits: Mapping[str, float]) -> dict[str, float]:
        """Limits in the components of the other side."""
        converted: dict[str, float] = {}
        for name, value in limits.items():
            targets = self._targets.get(name) or [TargetMapping(name)]
            for each in targets:
                converted[each.target] = converted.get(each.target, 0) + value * each.factor
        return converted

    def convert_usage_from_target(self, usage: Mapping[str, float]) -> dict[str, float]:
        """Usage of the other side in our components."""
        if self.is_passthrough:
            return dict(usage)
        return {
            name: sum(usage.get(each.target, 0) / each.factor for each in targets)
            if targets
            else usage.get(name, 0)
            for name, targets in self._targets.items()
        }


def _factor(settings: Any) -> float:
    found = settings.get("factor", 1) if isinstance(settings, Mapping) else settings
    return float(getattr(found, "factor", found) or 1)
