"""Log lines in Waldur: what goes, to whom, without names; nothing waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import structlog

from harness import SimulatedSite
from harness.testbed import Relay
from waldur_site_agent.config import Offering
from waldur_site_agent.config.settings import LogShipping
from waldur_site_agent.model.events import LogEntry
from waldur_site_agent.service.log_shipping import LogBuffer, LogShipper, Shipper
from waldur_site_agent.service.logs import configure_logs, redact
from waldur_site_agent.waldur import Waldur
from waldur_site_agent.waldur.http import RetryPolicy


class Way(Relay):
    """A way to Waldur that may be closed."""

    status = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.status and "agent-logs" in request.url.path:
            return httpx.Response(self.status, json={"detail": "no"}, request=request)
        return super().handle_request(request)


class Portal:
    """The sandbox as the Waldur of an offering."""

    def __init__(self, testbed: SimulatedSite) -> None:
        self.testbed, self.offering = testbed, testbed.offering()
        self.way = Way(testbed.sandbox.transport())
        self.connections = 0

    def connect(self, offering: Offering) -> Waldur:
        self.connections += 1
        return Waldur(
            offering.waldur_api_url,
            offering.token,
            transport=self.way,
            retry=RetryPolicy(attempts=1),
        )

    def shipper(self, **settings: object) -> LogShipper:
        shipping = LogShipping.model_validate({"enabled": True} | settings)
        return LogShipper(shipping, [self.offering], self.connect)

    @property
    def messages(self) -> list[str]:
        return [row.message for row in self.testbed.sandbox.customer.world.agent_logs.values()]


@pytest.fixture
def portal(testbed: SimulatedSite) -> Portal:
    return Portal(testbed)


@contextmanager
def shipping(shipper: LogShipper) -> Iterator[structlog.typing.FilteringBoundLogger]:
    """Log in the body; everything has been sent afterwards."""
    configure_logs("debug", "json")
    shipper.start()
    try:
        yield structlog.get_logger()
    finally:
        shipper.close()


def test_warnings_and_errors_of_an_offering_reach_its_agent_in_waldur(portal: Portal) -> None:
    with shipping(portal.shipper()) as log:
        log.bind(offering="Test cluster", mode="report").error("cycle failed", count=3)
        log.info("connected")
    (entry,) = portal.testbed.sandbox.customer.world.agent_logs.values()
    assert (entry.level, entry.module, entry.message) == (
        "ERROR",
        "report",
        "cycle failed; count=3",
    )
    (identity,) = portal.testbed.sandbox.customer.world.agent_identities.values()
    assert identity.uuid == entry.identity
    assert identity.name == f"agent-{portal.offering.waldur_offering_uuid.hex}"


def test_lines_of_another_offering_do_not_go_to_this_one(portal: Portal) -> None:
    with shipping(portal.shipper()) as log:
        log.warning("cycle cut short", offering="Another cluster")
        log.warning("configuration not reloaded")
    assert portal.messages == ["configuration not reloaded"]


@pytest.mark.guarantee("security: Logs in Waldur")
def test_names_stay_here_unless_the_site_asks_for_them(portal: Portal) -> None:
    def write(log: structlog.typing.FilteringBoundLogger) -> None:
        log.warning("left out", member="ada", error="ada: no home", action="AddMembers")
        log.warning("cannot look up ada", library="pwd")

    with shipping(portal.shipper()) as log:
        write(log)
    assert portal.messages == ["left out; action=AddMembers", "a message of a library"]
    with shipping(portal.shipper(send_names=True)) as log:
        write(log)
    assert portal.messages[2:] == [
        "left out; member=ada; error=ada: no home; action=AddMembers",
        "cannot look up ada",
    ]


@pytest.mark.guarantee("security: Logs in Waldur")
def test_secrets_are_masked_whatever_the_settings(portal: Portal) -> None:
    redact(["topsecrettoken"])
    with shipping(portal.shipper(send_names=True)) as log:
        log.error("failed", reason="token topsecrettoken was refused")
    assert portal.messages == ["failed; reason=token ******** was refused"]


def test_levels_below_the_chosen_one_stay_here(portal: Portal) -> None:
    with shipping(portal.shipper(log_level="CRITICAL")) as log:
        log.warning("a warning")
        log.error("an error")
    assert portal.messages == ["an error"]


def entry(number: int) -> LogEntry:
    return LogEntry(timestamp=number, level="ERROR", message=f"{number:06}" * 100, module="agent")


def test_a_full_buffer_drops_the_oldest_and_the_portal_is_told_how_many(portal: Portal) -> None:
    settings = LogShipping(enabled=True)
    shipper = Shipper(portal.offering, settings, portal.connect)
    for number in range(3000):
        shipper.buffer.add(entry(number))
    shipper.ship()
    first, *others = portal.messages
    assert (
        first
        == f"{3000 - len(others)} earlier log entries were dropped because the buffer was full"
    )
    assert 1000 < len(others) < 3000
    assert others[-1] == entry(2999).message


@pytest.mark.parametrize("status", [500, 502, 429])
def test_what_waldur_cannot_take_now_is_sent_later_in_its_order(
    portal: Portal, status: int
) -> None:
    shipper = Shipper(portal.offering, LogShipping(enabled=True), portal.connect)
    for number in range(250):
        shipper.buffer.add(entry(number))
    portal.way.status = status
    shipper.ship()
    assert portal.messages == []
    portal.way.status = 0
    shipper.ship()
    assert portal.messages == [entry(number).message for number in range(250)]


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_that_has_no_such_logs_is_not_asked_again(portal: Portal, status: int) -> None:
    shipper = Shipper(portal.offering, LogShipping(enabled=True), portal.connect)
    portal.way.status = status
    for number in range(3):
        shipper.buffer.add(entry(number))
        shipper.ship()
    assert portal.connections == 1


def test_what_shipping_itself_logs_is_not_shipped(portal: Portal) -> None:
    portal.way.status = 500
    shipper = portal.shipper()
    with shipping(shipper) as log:
        log.error("cycle failed")
    portal.way.status = 0
    (one,) = shipper._shippers.values()
    one.ship()
    assert portal.messages == ["cycle failed"]


def test_nobody_waits_for_a_portal_that_hangs(portal: Portal) -> None:
    hangs, asked = threading.Event(), threading.Event()

    def connect(offering: Offering) -> Waldur:
        asked.set()
        hangs.wait()
        return portal.connect(offering)

    shipper = Shipper(portal.offering, LogShipping(enabled=True), connect)
    shipper.buffer.add(entry(0))
    thread = threading.Thread(target=shipper.ship, daemon=True)
    thread.start()
    asked.wait()
    for number in range(1, 5000):
        shipper.buffer.add(entry(number))
    hangs.set()
    thread.join()
    assert portal.messages[0] == entry(0).message


def test_a_line_that_cannot_be_rendered_harms_nobody(portal: Portal) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    shipper = portal.shipper(send_names=True)
    shipper.take({"event": "odd", "level": "error", "value": Odd()})
    (one,) = shipper._shippers.values()
    one.ship()
    assert "1 earlier log entries were dropped" in portal.messages[0]


def test_the_buffer_is_bounded_in_bytes() -> None:
    buffer = LogBuffer(10_000)
    for number in range(100):
        buffer.add(entry(number))
    batch, dropped = buffer.take()
    assert len(batch) + dropped == 100
    assert sum(len(each.message) for each in batch) <= 10_000
