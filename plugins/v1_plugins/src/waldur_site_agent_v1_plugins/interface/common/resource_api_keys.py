"""Stands for ``waldur_site_agent.common.resource_api_keys``; the agent manages no API keys."""

from __future__ import annotations

from typing import Any

from waldur_site_agent_v1_plugins.interface.common.spending_limits import plugin_options


def manages_api_keys(resource: Any) -> bool:
    """Whether the offering asks for API keys to be managed."""
    return bool(plugin_options(resource).get("enable_api_key_provisioning"))
