"""The backend of docs/write-a-backend.md is complete and keeps the contract."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness import House
from waldur_site_agent.backends.registry import Registry
from waldur_site_agent.config import load_configuration
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.service.modes import ORDER_PROCESS
from waldur_site_agent.service.sessions import Situation, open_site

PAGE = Path(__file__).parents[2] / "docs" / "write-a-backend.md"


def _extracted() -> ModuleType:
    """The page's Python as one module; its test class refers to its backend."""
    blocks = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    module = ModuleType("documented_backend")
    sys.modules[module.__name__] = module  # pydantic looks annotations up there
    for number, block in enumerate(blocks):
        code = compile(block.split("```")[0], f"{PAGE.name}[{number}]", "exec")
        exec(code, module.__dict__)  # noqa: S102 - our own page
    return module


EXAMPLE = _extracted()
TestDocumentedBackend = EXAMPLE.TestJsonFileBackend


@pytest.fixture
def situation(house: House, tmp_path: Path) -> Situation:
    (tmp_path / "accounts.json").write_text("{}")
    offering = house.offering()
    file = tmp_path / "config.yaml"
    file.write_text(
        f"""
        offerings:
          - name: An example
            waldur_api_url: {house.url}
            waldur_api_token: {offering.token}
            waldur_offering_uuid: {offering.waldur_offering_uuid}
            order_processing_backend: json-file
            backend_settings: {{file: {tmp_path}/accounts.json}}
            backend_components:
              cpu: {{label: CPU, measured_unit: h, unit_factor: 60, accounting_type: limit}}
        """
    )
    configuration, source = load_configuration(file)
    registry = Registry({"json-file": EXAMPLE.JsonFileBackend})
    return Situation(configuration=configuration, source=source, registry=registry)


def test_the_documented_backend_carries_out_an_order(
    house: House, situation: Situation, tmp_path: Path
) -> None:
    order = house.order(house.project("climate", ada="ada01"), "Ocean", cpu=10)
    offering = situation.configuration.offerings[0]
    with open_site(situation, offering, ORDER_PROCESS, lambda: False) as site:
        process_orders(site)
    assert house.state(order) == "done"
    accounts = json.loads((tmp_path / "accounts.json").read_text())
    account = accounts[house.resource(order).backend_id]
    assert account["parent"] == "waldur-project-climate"
    assert (account["members"], account["limits"]) == (["ada01"], {"cpu": "600"})
