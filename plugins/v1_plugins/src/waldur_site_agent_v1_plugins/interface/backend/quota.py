"""Stands for ``waldur_site_agent.backend.quota``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class HomedirQuotaConfig(BaseModel):
    """The quota of home directories, as configured; plugins read it themselves."""

    model_config = ConfigDict(extra="allow")
