"""The template for plugins is complete and keeps the contract; its page shows parts of it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest

from harness import SimulatedSite
from waldur_site_agent.backends import Backend
from waldur_site_agent.backends.contract import HOOKS
from waldur_site_agent.backends.plugins import Registry
from waldur_site_agent.config import load_configuration
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.service.session import ORDER_PROCESS, Runtime, open_site

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "write-a-backend.md"
TEMPLATE = ROOT / "examples" / "plugin"
COMMAND_LINE = ROOT / "examples" / "plugin-command-line"
PORTED = ROOT / "examples" / "plugin-ported"


def _loaded(name: str, file: Path) -> ModuleType:
    """A module of the template, as if the template were installed."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its own test imports it, and pydantic looks annotations up there
    spec.loader.exec_module(module)
    return module


EXAMPLE = _loaded("my_site_backend.backend", TEMPLATE / "src" / "my_site_backend" / "backend.py")
TestTemplate = _loaded(
    "my_site_backend_conformance", TEMPLATE / "tests" / "test_conformance.py"
).TestJsonFileBackend
TALLY = _loaded("tally_backend.backend", COMMAND_LINE / "src" / "tally_backend" / "backend.py")
_TALLY_TESTS = _loaded(
    "tally_backend_conformance", COMMAND_LINE / "tests" / "test_tally_conformance.py"
)
TestCommandLineTemplate = _TALLY_TESTS.TestTallyBackend
test_the_tool_of_the_template_is_run_as_a_process = (
    _TALLY_TESTS.test_the_tool_itself_is_run_as_a_process
)


_loaded("campus_folders", PORTED / "src" / "campus_folders" / "__init__.py")
_loaded("campus_folders.server", PORTED / "src" / "campus_folders" / "server.py")
_loaded("campus_folders.backend", PORTED / "src" / "campus_folders" / "backend.py")
_PORTED_TESTS = _loaded(
    "campus_folders_conformance", PORTED / "tests" / "test_folders_conformance.py"
)
TestPortedPlugin = _PORTED_TESTS.TestFolderBackend
sys.modules["campus_folders"].__path__ = [str(PORTED / "src" / "campus_folders")]
TestThePluginBeforeThePort = _PORTED_TESTS.TestFolderBackendOfVersion1


def test_the_page_about_porting_shows_what_the_example_has() -> None:
    page = (ROOT / "docs" / "port-a-plugin.md").read_text(encoding="utf-8")
    sources = ["".join(f.read_text(encoding="utf-8").split()) for f in PORTED.rglob("*.py")]
    shown = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(shown) >= 4
    for block in shown:  # which the page may indent and break in another way
        assert any("".join(block.split()) in source for source in sources), block


def test_the_page_shows_what_the_template_has() -> None:
    files = (*TEMPLATE.rglob("*.py"), *COMMAND_LINE.rglob("*.py"))
    sources = [file.read_text(encoding="utf-8") for file in files]
    sources.append((TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))
    shown = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) >= 3
    for block in shown:
        assert any(block.strip("\n") in source for source in sources), block


@pytest.fixture
def runtime(testbed: SimulatedSite, tmp_path: Path) -> Iterator[Runtime]:
    with testbed.served():
        yield _runtime(testbed, tmp_path)


def _runtime(testbed: SimulatedSite, tmp_path: Path) -> Runtime:
    (tmp_path / "accounts.json").write_text("{}")
    offering = testbed.offering()
    file = tmp_path / "config.yaml"
    file.write_text(
        f"""
        offerings:
          - name: An example
            waldur_api_url: {testbed.url}
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
    return Runtime(configuration=configuration, source=source, registry=registry)


def test_the_template_carries_out_an_order(
    testbed: SimulatedSite, runtime: Runtime, tmp_path: Path
) -> None:
    order = testbed.order(testbed.project("climate", ada="ada01"), "Ocean", cpu=10)
    offering = runtime.configuration.offerings[0]
    with open_site(runtime, offering, ORDER_PROCESS, lambda: False) as site:
        process_orders(site)
    assert testbed.state(order) == "done"
    accounts = json.loads((tmp_path / "accounts.json").read_text())
    account = accounts[testbed.resource(order).backend_id]
    assert account["parent"] == "waldur-project-climate"
    assert (account["members"], account["limits"]) == (["ada01"], {"cpu": "600"})


def test_the_template_reports_what_was_used_in_the_month(tmp_path: Path) -> None:
    file = tmp_path / "accounts.json"
    entries = [
        {"at": f"2026-{day}T00:00:00+00:00", "user": "ada", "component": "cpu", "amount": amount}
        for day, amount in (("09-30", 1), ("10-01", 2), ("10-31", "0.1"), ("11-01", 4))
    ]
    blank = {"parent": "root", "organization": "p", "members": [], "limits": {}}
    file.write_text(json.dumps({"one": {**blank, "usage": entries}}))
    backend = EXAMPLE.JsonFileBackend(EXAMPLE.JsonFileSettings(file=file), {})
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    october = BillingMonth(2026, 10).period(UTC)
    report = backend.usage({"one": long_ago, "idle": long_ago}, october)
    assert {"cpu": Fraction(21, 10)} == report.resources["one"].total
    assert report.resources["idle"].total == {}


def test_the_page_names_every_member_of_the_contract_and_every_kind_of_action() -> None:
    page = PAGE.read_text(encoding="utf-8")
    hooks = {*HOOKS.values()}
    members = {name for name in vars(Backend) if not name.startswith("_")}
    missing = {name for name in members - hooks if f"`{name}" not in page}
    missing |= {kind.__name__ for kind in HOOKS if f"`{kind.__name__}`" not in page}
    assert missing == set()
