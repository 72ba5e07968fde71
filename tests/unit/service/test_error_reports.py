"""A report to Sentry holds what helps to mend a defect, and no secret and no name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
import structlog
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from waldur_site_agent.model.errors import DefectError, PermanentError, TemporaryError
from waldur_site_agent.service.error_reports import ErrorReports
from waldur_site_agent.service.logs import configure_logs, redact, watch_defects
from waldur_site_agent_v1_plugins.interface.backend import logger as v1_logger

DSN = "https://0123456789abcdef@sentry.invalid/1"
TOKEN = "b4f1c0ffee00token1234"
PERSON = "ada.lovelace"


class Collected(Transport):
    """Takes what would go over the network."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope)

    @property
    def events(self) -> list[dict[str, Any]]:
        found = [item.get_event() for envelope in self.sent for item in envelope.items]
        return [dict(event) for event in found if event is not None]

    @property
    def text(self) -> str:
        return " ".join(envelope.serialize().decode() for envelope in self.sent)


@pytest.fixture
def collected() -> Iterator[Collected]:
    redact([TOKEN])
    configure_logs("error", "json")
    yield Collected()
    watch_defects()
    sentry_sdk.init()


def reporting(collected: Collected, *, send_names: bool, **environ: str) -> None:
    reports = ErrorReports(DSN, send_names=send_names, environ=environ, transport=collected)
    watch_defects(reports.defect)


def _raise(error: Exception) -> None:
    raise error


def fall_over(error: Exception) -> None:
    """Fail as a plugin would, with secrets and people all around."""
    password = f"password={TOKEN}"
    request_body = {"email": f"{PERSON}@example.com", "token": TOKEN}
    log = structlog.get_logger().bind(offering="Cluster", mode="report", members=[PERSON])
    try:
        _raise(error)
    except Exception:
        log.exception("cycle failed because of a bug", body=request_body, word=password)


def _plugin_of_version_1() -> None:
    try:
        _raise(RuntimeError("odd"))
    except RuntimeError:
        v1_logger.exception(f"could not add {PERSON} with {TOKEN}")


def _library() -> None:
    try:
        _raise(RuntimeError("odd"))
    except RuntimeError:
        logging.getLogger("some.plugin").exception("could not add %s with %s", PERSON, TOKEN)


@pytest.mark.guarantee("security: Error reports")
@pytest.mark.parametrize("say", [_plugin_of_version_1, _library])
@pytest.mark.parametrize("send_names", [True, False])
def test_what_a_plugin_writes_into_its_log_is_reported_only_with_names(
    collected: Collected, say: Callable[[], None], send_names: bool
) -> None:
    reporting(collected, send_names=send_names)
    say()
    (event,) = collected.events
    assert event["exception"]["values"][0]["type"] == "RuntimeError"
    assert (PERSON in collected.text) is send_names
    assert TOKEN not in collected.text


@pytest.mark.guarantee("security: Error reports")
@pytest.mark.parametrize("send_names", [True, False])
def test_a_report_holds_no_secret_and_no_local_variable(
    collected: Collected, send_names: bool
) -> None:
    reporting(collected, send_names=send_names)
    fall_over(KeyError(f"{TOKEN} of {PERSON}"))
    (event,) = collected.events
    assert TOKEN not in collected.text
    assert f"{PERSON}@example.com" not in collected.text
    assert (PERSON in collected.text) is send_names
    assert not {"request", "extra", "contexts", "breadcrumbs", "user", "server_name"} & {*event}
    (exception,) = event["exception"]["values"]
    for frame in exception["stacktrace"]["frames"]:
        assert {*frame} <= {"filename", "function", "module", "lineno", "in_app"}


def test_a_report_says_what_happened_where_in_which_version(collected: Collected) -> None:
    reporting(collected, send_names=False, SENTRY_ENVIRONMENT="staging")
    fall_over(KeyError("surprise"))
    (event,) = collected.events
    (exception,) = event["exception"]["values"]
    assert exception["type"] == "KeyError"
    assert exception["stacktrace"]["frames"][-1]["function"] == "_raise"
    assert event["tags"] == {
        "offering": "Cluster",
        "mode": "report",
        "said": "cycle failed because of a bug",
    }
    assert event["environment"] == "staging"
    assert event["release"].startswith("waldur-site-agent@2.")


def test_causes_are_reported_without_their_texts_too(collected: Collected) -> None:
    reporting(collected, send_names=False)
    error = RuntimeError("outer")
    error.__cause__ = ValueError(f"inner {PERSON}")
    fall_over(error)
    (event,) = collected.events
    assert {value["type"] for value in event["exception"]["values"]} == {
        "RuntimeError",
        "ValueError",
    }
    assert PERSON not in collected.text


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (TemporaryError("Waldur is away"), 0),
        (PermanentError("the name is taken"), 0),
        (DefectError("a bug while planning"), 1),
        (AttributeError("a bug"), 1),
    ],
)
def test_defects_are_reported_and_expected_failures_are_not(
    collected: Collected, error: Exception, reported: int
) -> None:
    reporting(collected, send_names=False)
    fall_over(error)
    assert len(collected.events) == reported


def test_a_line_without_an_exception_is_not_reported(collected: Collected) -> None:
    reporting(collected, send_names=False)
    structlog.get_logger().error("order erred", reason="the name is taken")
    assert collected.events == []


def test_a_dsn_that_cannot_be_used_stops_nothing_and_is_not_quoted(
    collected: Collected, capsys: pytest.CaptureFixture[str]
) -> None:
    redact(["not-a-dsn-but-secret"])
    ErrorReports("not-a-dsn-but-secret", send_names=False, transport=collected)
    assert "not-a-dsn-but-secret" not in capsys.readouterr().err
