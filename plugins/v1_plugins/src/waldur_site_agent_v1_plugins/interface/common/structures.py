"""Stands for ``waldur_site_agent.common.structures``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict


@dataclass
class Offering:
    """The offering, as plugins of usernames read it."""

    name: str = ""
    waldur_offering_uuid: str = ""
    waldur_api_url: str = ""
    waldur_api_token: str = ""
    backend_settings: dict[str, Any] = field(default_factory=dict)
    backend_components: dict[str, Any] = field(default_factory=dict)
    verify_ssl: bool = True
    username_management_backend: str = ""

    @property
    def uuid(self) -> str:
        """The offering's UUID in Waldur."""
        return self.waldur_offering_uuid

    @property
    def api_url(self) -> str:
        """The address of Waldur's API."""
        return self.waldur_api_url

    @property
    def api_token(self) -> str:
        """The token; empty, as the agent does not hand it on."""
        return self.waldur_api_token


class BackendComponent(BaseModel):
    """One component, with the keys of the file."""

    model_config = ConfigDict(extra="allow")

    measured_unit: str = ""
    unit_factor: float = 1
    accounting_type: str = ""
    label: str = ""
    limit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Only what was given."""
        return self.model_dump(exclude_unset=True)


def normalize_backend_components(components: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Components as plain dictionaries."""
    return {
        name: one.model_dump(exclude_unset=True) if isinstance(one, BaseModel) else dict(one)
        for name, one in components.items()
    }
