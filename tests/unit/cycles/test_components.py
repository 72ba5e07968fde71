"""``components load``: every configured field reaches Waldur, and nothing else changes there."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from harness import SimulatedSite, a_simulated_site
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.cycles.offering import load_components
from waldur_site_agent.cycles.site import CommandOutcome

EVERY_DETAIL: dict[str, Any] = {
    "description": "Hours of one core",
    "article_code": "HPC-1",
    "min_value": 1,
    "max_value": 5000,
    "default_limit": 10,
    "max_available_limit": 100000,
    "limit_period": "annual",
    "is_boolean": True,
    "is_prepaid": True,
    "min_prepaid_duration": 1,
    "max_prepaid_duration": 24,
    "prepaid_duration_step": 3,
    "min_renewal_duration": 2,
    "max_renewal_duration": 12,
    "renewal_duration_step": 1,
}


def configured(testbed: SimulatedSite, **keys: object) -> None:
    described = {"measured_unit": "k-Hours", "accounting_type": "limit", "label": "CPU"}
    testbed.components["cpu"] = ComponentSettings.model_validate(
        {**described, "unit_factor": 60000, **keys}
    )


def load(testbed: SimulatedSite, *, dry_run: bool = False) -> CommandOutcome:
    with testbed.agent() as agent:
        return load_components(agent.offering, agent.waldur, dry_run=dry_run)


def in_waldur(testbed: SimulatedSite, name: str = "cpu") -> dict[str, Any]:
    (found,) = [c for c in testbed.sandbox.offering.components if c.type == name]
    return {key: getattr(found, key) for key in (*EVERY_DETAIL, "limit_amount", "unit_factor")}


def test_every_field_is_written_once(testbed: SimulatedSite) -> None:
    configured(testbed, **EVERY_DETAIL, limit=7)
    outcome = load(testbed)
    assert outcome.trouble == ()
    assert in_waldur(testbed) == {**EVERY_DETAIL, "limit_amount": 7, "unit_factor": 60000}
    testbed.sandbox.requests.clear()
    assert load(testbed).done == ()
    assert testbed.sandbox.requests.writes() == []


def test_a_dry_run_shows_old_and_new_values_and_changes_nothing(testbed: SimulatedSite) -> None:
    configured(testbed, max_value=20, description="Hours of one core")
    load(testbed)
    configured(testbed, max_value="12.5", is_boolean=True)
    before = in_waldur(testbed)
    (line,) = load(testbed, dry_run=True).done
    assert line == "~ cpu  max_value: 20 -> 12.5; is_boolean: no -> yes"
    assert in_waldur(testbed) == before


def test_a_field_that_is_not_configured_keeps_its_value(testbed: SimulatedSite) -> None:
    configured(testbed, **EVERY_DETAIL, limit=7)
    load(testbed)
    configured(testbed, description="Hours of a core")
    load(testbed)
    assert in_waldur(testbed) == {
        **EVERY_DETAIL,
        "description": "Hours of a core",
        "limit_amount": 7,
        "unit_factor": 60000,
    }


def test_a_yes_is_taken_back(testbed: SimulatedSite) -> None:
    configured(testbed, is_boolean=True, is_prepaid=True)
    load(testbed)
    configured(testbed, is_boolean=False, is_prepaid=False)
    (line,) = load(testbed).done
    assert line == "~ cpu  is_boolean: yes -> no; is_prepaid: yes -> no"
    assert (in_waldur(testbed)["is_boolean"], in_waldur(testbed)["is_prepaid"]) == (False, False)


def test_a_factor_that_is_not_whole_is_the_agents_own_matter(testbed: SimulatedSite) -> None:
    """Waldur keeps whole factors only, and shows them to people."""
    configured(testbed, unit_factor=Decimal("0.5"))
    assert load(testbed).trouble == ()
    assert in_waldur(testbed)["unit_factor"] == 60000


def test_a_refused_component_stops_no_other(testbed: SimulatedSite) -> None:
    testbed.components["x" * 51] = ComponentSettings(
        measured_unit="h", accounting_type="limit", label="Long"
    )
    configured(testbed, description="Hours of one core")
    outcome = load(testbed)
    assert in_waldur(testbed)["description"] == "Hours of one core"
    (trouble,) = outcome.trouble
    assert trouble.startswith("xxx")
    assert "no more than 50 characters" in trouble


def test_a_field_that_an_old_server_drops_is_named(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_simulated_site(tmp_path_factory.mktemp("h") / "lock", "7.7.9") as testbed:
        configured(testbed, is_prepaid=True, description="Hours of one core")
        (trouble,) = load(testbed).trouble
        assert "is_prepaid: none -> yes" in trouble
        assert "may be too old" in trouble
        assert in_waldur(testbed)["description"] == "Hours of one core"
