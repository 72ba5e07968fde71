"""Stands for ``waldur_site_agent.common.spending_limits``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plugin_options(resource: Any) -> Mapping[str, Any]:
    """The offering's options as a mapping, whatever form they have."""
    options = getattr(resource, "offering_plugin_options", None)
    to_dict = getattr(options, "to_dict", None)
    if to_dict is not None:
        options = to_dict()
    return options if isinstance(options, Mapping) else {}


def resource_spending_limits(resource: Any) -> dict[str, dict[str, Any]] | None:
    """By component, the amounts by period; ``None`` where there are none."""
    found = getattr(resource, "spending_limits", None)
    to_dict = getattr(found, "to_dict", None)
    if to_dict is not None:
        found = to_dict()
    return dict(found) if isinstance(found, Mapping) and found else None
