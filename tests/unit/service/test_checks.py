"""Checks of the machine and of the way to the broker name what is wrong and what to do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from harness import Installation, SimulatedSite
from waldur_site_agent.backends import Check, CheckStatus
from waldur_site_agent.config import Offering, load_configuration
from waldur_site_agent.service import diagnosis
from waldur_site_agent.service.diagnosis import (
    clock_check,
    diagnose_broker,
    diagnose_machine,
    diagnose_settings,
)


def machine(installation: Installation) -> dict[str, Check]:
    configuration, source = load_configuration(installation.file)
    return {check.name: check for check in diagnose_machine(configuration, source)}


@contextmanager
def web_server(status: int) -> Iterator[int]:
    """Answers every request with the same status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def by_events(testbed: SimulatedSite, port: int, **changes: Any) -> Offering:
    settings = {
        "stomp_enabled": True,
        "stomp_ws_host": "127.0.0.1",
        "stomp_ws_port": port,
        "websocket_use_tls": False,
    }
    return testbed.offering().model_copy(update=settings | changes)


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [
        (0o600, CheckStatus.OK),
        (0o640, CheckStatus.OK),
        (0o644, CheckStatus.WARNING),
        (0o660, CheckStatus.WARNING),
    ],
)
def test_a_file_with_a_token_is_for_few(
    installation: Installation, mode: int, verdict: CheckStatus
) -> None:
    installation.file.chmod(mode)
    check = machine(installation)["configuration file"]
    assert check.verdict is verdict
    assert ("chmod 640" in check.remedy) is (verdict is CheckStatus.WARNING)


def test_a_file_without_a_token_may_be_read_and_the_file_of_the_token_is_looked_at(
    installation: Installation,
) -> None:
    token = installation.directory / "token"
    token.write_text("0123456789")
    token.chmod(0o644)
    installation.write(waldur_api_token=..., waldur_api_token_file=str(token))
    installation.file.chmod(0o644)
    found = machine(installation)
    assert found["configuration file"].verdict is CheckStatus.OK
    assert found["token file"].verdict is CheckStatus.WARNING
    assert "0123456789" not in str(found)


def test_a_time_zone_that_nobody_chose_is_a_warning(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones = iter((ZoneInfo("Europe/Tallinn"), ZoneInfo("UTC")))
    monkeypatch.setattr(diagnosis, "billing_zone", lambda _configuration: next(zones))
    check = machine(installation)["time zone"]
    assert (check.verdict, "Europe/Tallinn" in check.detail) == (CheckStatus.WARNING, True)
    assert machine(installation)["time zone"].verdict is CheckStatus.OK


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"),
    [
        (0.4, CheckStatus.OK, "agrees"),
        (-59.0, CheckStatus.OK, "agrees"),
        (300.0, CheckStatus.WARNING, "300 s behind"),
        (-300.0, CheckStatus.WARNING, "300 s ahead of"),
        (None, CheckStatus.WARNING, "no Date header"),
    ],
)
def test_a_clock_that_differs_is_a_warning(
    ahead: float | None, verdict: CheckStatus, words: str
) -> None:
    check = clock_check(ahead)
    assert check.verdict is verdict
    assert words in check.detail


def test_an_offering_without_events_needs_no_broker(testbed: SimulatedSite) -> None:
    assert list(diagnose_broker(testbed.offering())) == []


@pytest.mark.parametrize(
    ("status", "verdict", "remedy"),
    [
        (101, CheckStatus.OK, ""),
        (426, CheckStatus.OK, ""),
        (404, CheckStatus.FAILED, "stomp_ws_path"),
        (502, CheckStatus.FAILED, "forward WebSockets"),
    ],
)
def test_the_way_to_the_broker_is_judged_by_its_answer(
    testbed: SimulatedSite, status: int, verdict: CheckStatus, remedy: str
) -> None:
    with web_server(status) as port:
        reached, upgraded = diagnose_broker(by_events(testbed, port))
    assert reached.verdict is CheckStatus.OK
    assert upgraded.verdict is verdict
    assert remedy in upgraded.remedy


def test_a_broker_that_is_away_or_speaks_no_tls_is_one_failed_check(testbed: SimulatedSite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    (check,) = diagnose_broker(by_events(testbed, port))
    assert (check.name, check.verdict) == ("broker", CheckStatus.FAILED)
    with web_server(404) as port:
        (check,) = diagnose_broker(by_events(testbed, port, websocket_use_tls=True))
    assert check.verdict is CheckStatus.FAILED
    assert "TLS" in check.detail


def test_the_diagnosis_is_the_same_for_machines(installation: Installation) -> None:
    done = installation.run("--output", "json", command="waldur_site_diagnostics")
    assert done.code == 0, done.out
    report = json.loads(done.out)
    assert report["failed"] is False
    assert {check["name"] for check in report["machine"]} >= {"configuration file", "time zone"}
    (offering,) = report["offerings"]
    names = [check["name"] for check in offering["checks"]]
    assert {"Waldur", "clock", "token", "home directories"} <= set(names)
    assert {check["verdict"] for check in offering["checks"]} <= {"ok", "warning"}


@pytest.mark.parametrize(
    ("safety", "accounting", "warns"),
    [
        (None, "limit", True),
        ({"max_removals": 3}, "limit", True),
        ({"missing_limits": "refuse"}, "limit", False),
        ({"missing_limits": "unlimited"}, "limit", False),
        (None, "usage", False),
    ],
)
@pytest.mark.parametrize("place", ["file", "offering"])
def test_a_site_that_sells_by_limit_is_told_to_decide_what_orders_without_one_get(
    installation: Installation,
    safety: dict[str, object] | None,
    accounting: str,
    place: str,
    warns: bool,
) -> None:
    cpu = {
        "label": "CPU",
        "measured_unit": "k-Hours",
        "unit_factor": 60000,
        "accounting_type": accounting,
    }
    own = {"backend_components": {"cpu": cpu}}
    decided = {} if safety is None else {"safety": safety}
    if place == "file":
        installation.write_offerings(own, **decided)
    else:
        installation.write_offerings(own | decided)
    configuration, _ = load_configuration(installation.file)
    checks = list(diagnose_settings(configuration, configuration.offerings[0]))
    assert [check.verdict for check in checks] == [CheckStatus.WARNING] * warns
    assert all("missing_limits: refuse" in check.remedy for check in checks)
