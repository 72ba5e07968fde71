"""Stands for ``waldur_site_agent.common.plugin_schemas``: pydantic models that only warn."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from waldur_site_agent_v1_plugins.interface.backend.quota import HomedirQuotaConfig

SECRET: dict[str, Any] = {"secret": True}
"""``json_schema_extra`` of fields that hold credentials."""


class PluginComponentSchema(BaseModel):
    """Base of a plugin's own keys of a component."""

    model_config = ConfigDict(extra="forbid")


class PluginBackendSettingsSchema(BaseModel):
    """Base of a plugin's ``backend_settings``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class CommonBackendSettingsSchema(PluginBackendSettingsSchema):
    """With the settings that many backends share."""

    customer_prefix: str | None = None
    project_prefix: str | None = None
    allocation_prefix: str | None = None
    default_account: str | None = None
    soft_delete: bool | None = None
    check_backend_id_uniqueness: bool | None = None
    check_all_offerings: bool | None = None
    backend_id_max_retries: int | None = Field(default=None, ge=1)
    periodic_limits: dict[str, Any] | None = None


class HomedirSettingsSchema(BaseModel):
    """With the settings of home directories."""

    enable_user_homedir_account_creation: bool = True
    default_homedir_umask: str = "0077"
    homedir_base_path: str | None = None
    homedir_quota: HomedirQuotaConfig | None = None


class TargetComponentConfig(BaseModel):
    """A component of another system that a component is converted to."""

    model_config = ConfigDict(extra="forbid")

    factor: float = Field(default=1.0, gt=0)
