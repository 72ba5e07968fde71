"""What is in the log, and what must never be."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from waldur_site_agent.service import logs

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PIECE = TOKEN[:12]
STYLES = ["json", "console"]


@pytest.fixture(autouse=True)
def nothing_else_is_concealed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_conceal", logs._Concealer())
    yield
    structlog.reset_defaults()


def fail_with(message: str) -> None:
    environment = {"PATH": "/usr/bin:/bin:/usr/local/sbin", "MORE": "y" * 5, "TOKEN": TOKEN}
    headers = [f"Authorization: Token {TOKEN}"]
    raise KeyError(message, len(environment), len(headers))


def logged_failure(style: str, message: str) -> str:
    stream = io.StringIO()
    logs.configure_logs("info", style, stream)
    try:
        fail_with(message)
    except KeyError:
        structlog.get_logger().exception("cycle failed")
    return stream.getvalue()


@pytest.mark.parametrize("style", STYLES)
def test_a_traceback_shows_no_local_variables(style: str) -> None:
    text = logged_failure(style, "oops")
    assert "fail_with" in text
    assert "oops" in text
    assert PIECE not in text
    assert TOKEN[-12:] not in text
    assert "/usr/local/sbin" not in text


@pytest.mark.parametrize("style", STYLES)
def test_a_token_in_the_message_of_an_exception_is_masked(style: str) -> None:
    logs.redact([TOKEN])
    text = logged_failure(style, f"no such key {TOKEN}")
    assert "********" in text
    assert PIECE not in text


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("secret", [TOKEN, 'quo"ted\\secret', "apo'strophe\"and\\more"])
def test_a_secret_in_any_part_of_a_line_is_masked(style: str, secret: str) -> None:
    logs.redact([secret])
    stream = io.StringIO()
    logs.configure_logs("info", style, stream)
    structlog.get_logger().info(f"event {secret}", value=secret, parts={"x": [secret]})
    text = stream.getvalue()
    assert secret not in text
    assert json.dumps(secret)[1:-1] not in text
    assert repr(secret)[1:-1] not in text


def test_json_tracebacks_stay_machine_readable() -> None:
    line = json.loads(logged_failure("json", "oops"))
    assert line["exception"][0]["exc_type"] == "KeyError"
