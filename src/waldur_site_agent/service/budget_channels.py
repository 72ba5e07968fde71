"""Tells of budgets: a webhook, a command of the site, and a file for users of login nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from waldur_site_agent.backends.output_files import replace_file
from waldur_site_agent.backends.processes import ProcessRunner, described
from waldur_site_agent.config import Budgets
from waldur_site_agent.model.budget_notices import Budget, BudgetNotice
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import TeamMember
from waldur_site_agent.waldur.address import Proxy
from waldur_site_agent.waldur.http import Timeouts, open_client
from waldur_site_agent.waldur.transport import Deadline, read_response, until

FORMAT = 1
"""The version of the file's format, and of what notices say."""
_SECONDS = 30.0
_TIMEOUTS = Timeouts(connect=10.0, read=_SECONDS, whole=_SECONDS)
_SECONDS_FOR_THE_COMMAND = 60.0


class Channels:
    """The channels of one offering, as configured."""

    def __init__(
        self,
        offering: str,
        settings: Budgets,
        *,
        proxy: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._offering = offering
        self._settings = settings
        self._proxy = Proxy.configured(proxy)
        self._transport = transport
        remedy = "correct the command of budgets in the configuration"
        self._runner = ProcessRunner(when_missing=remedy)

    def tell(self, notice: BudgetNotice, people: Sequence[TeamMember]) -> None:
        """Post the notice to the webhook and run the command.

        Raises:
            TemporaryError: one of them did not take it.
        """
        body = json.dumps(notice_json(self._offering, notice, people))
        if self._settings.webhook.get_secret_value():
            self._post(body)
        if self._settings.command:
            self._run(notice, body)

    def publish(self, budgets: Sequence[Budget]) -> None:
        """Replace the file atomically.

        Raises:
            TemporaryError: it cannot be written.
        """
        if not self._settings.file:
            return
        path = Path(self._settings.file)
        text = json.dumps(file_json(self._offering, budgets, datetime.now(UTC)), indent=1)
        try:
            mode = int(self._settings.file_mode, 8)
            replace_file(path, f"{text}\n".encode(), mode, ignore_umask=True)
        except OSError as error:
            raise TemporaryError(
                f"{path}: the budget file cannot be written: {error.strerror}",
                remedy="create the directory, and let the agent write there",
            ) from error

    def _post(self, body: str) -> None:
        deadline = Deadline(_SECONDS, time.monotonic)
        headers = {"Content-Type": "application/json"}
        if token := self._settings.webhook_token.get_secret_value():
            headers["Authorization"] = f"Bearer {token}"
        url = self._settings.webhook.get_secret_value()
        try:
            with (
                open_client(True, self._proxy, "budgets", _TIMEOUTS, self._transport) as http,
                until(deadline),
            ):
                request = http.build_request("POST", url, content=body, headers=headers)
                response = read_response(http.send(request, stream=True), deadline)
        except httpx.RequestError as error:
            raise TemporaryError(
                f"the budget webhook did not answer: {type(error).__name__}",
                remedy="check the service behind it, and proxies on the way",
            ) from None  # the cause may name the URL, which may be a secret
        except (httpx.InvalidURL, UnicodeError):
            raise TemporaryError(
                "the budget webhook has an invalid host name, or a token that is not ASCII",
                remedy="correct webhook or webhook_token in the configuration",
            ) from None  # as above
        if not response.is_success:
            raise TemporaryError(
                f"the budget webhook answered HTTP {response.status_code}",
                remedy="correct webhook or webhook_token in the configuration",
            )

    def _run(self, notice: BudgetNotice, body: str) -> None:
        values = {
            "{account}": notice.budget.account,
            "{component}": notice.budget.component,
            "{percent}": str(notice.percent),
        }
        command = tuple(_filled(word, values) for word in self._settings.command)
        result = self._runner.run_with_input(command, body, _SECONDS_FOR_THE_COMMAND)
        if result.exit_code != 0:
            raise TemporaryError(
                f"the budget command failed: {described(result)}",
                remedy="run it by hand with the JSON of a notice as its input",
            )


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def notice_json(
    offering: str, notice: BudgetNotice, people: Iterable[TeamMember]
) -> dict[str, Any]:
    """A notice as webhooks and commands get it; amounts are in Waldur's measured units."""
    return {
        "format": FORMAT,
        "event": "budget_threshold_crossed",
        "id": notice.key,
        "offering": offering,
        "percent": notice.percent,
        **_budget_json(notice.budget),
        "recipients": [
            {"role": each.role, "name": each.full_name, "email": each.email} for each in people
        ],
    }


def file_json(offering: str, budgets: Iterable[Budget], now: datetime) -> dict[str, Any]:
    """The file as ``waldur-budget`` reads it; it names no people."""
    return {
        "format": FORMAT,
        "offering": offering,
        "written": now.isoformat(timespec="seconds"),
        "budgets": [_budget_json(budget) for budget in budgets],
    }


def _budget_json(budget: Budget) -> dict[str, Any]:
    return {
        "account": budget.account,
        "resource": {"uuid": str(budget.resource), "name": budget.title},
        "project": budget.project,
        "ends_on": budget.ends_on.isoformat() if budget.ends_on else None,
        "component": budget.component,
        "label": budget.label,
        "unit": budget.unit,
        "limit": round(float(budget.limit), 6),
        "used": round(float(budget.used), 6),
        "used_percent": round(float(budget.share * 100), 2),
    }
