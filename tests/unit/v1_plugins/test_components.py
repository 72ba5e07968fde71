"""What plugins of version 1 are told of components."""

from __future__ import annotations

from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent_v1_plugins.settings import components_as_written


def test_keys_of_a_component_that_only_a_plugin_reads_reach_it() -> None:
    written = {"label": "Storage", "measured_unit": "GB", "accounting_type": "limit"}
    own = {"backend_name": "disk", "enforce_limits": "false", "type": "volume"}
    component = ComponentSettings.model_validate(written | own).component("storage")
    found = components_as_written({"storage": component})["storage"]
    expected = {"backend_name": "disk", "enforce_limits": False, "type": "volume"}
    assert {key: found[key] for key in expected} == expected
    assert "mup_allocation_type" not in found
