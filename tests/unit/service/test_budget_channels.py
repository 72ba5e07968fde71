"""What webhooks, commands of the site and the file for login nodes get."""

from __future__ import annotations

import json
import stat
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from waldur_site_agent.config import Budgets
from waldur_site_agent.model.budget_notices import Budget, BudgetNotice
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import TeamMember
from waldur_site_agent.service.budget_channels import Channels

URL = "https://chat.example.com/hooks/very-secret"
BUDGET = Budget(
    resource=UUID(int=1),
    account="a_ocean",
    title="Ocean \x1b[31m<b>",
    project="climate",
    ends_on=date(2027, 3, 1),
    component="cpu",
    label="CPU",
    unit="k-Hours",
    limit=Decimal(10),
    used=Decimal(8),
)
NOTICE = BudgetNotice(BUDGET, 80)
EVE = TeamMember(
    uuid=UUID(int=2), username="eve", full_name="Eve", email="eve@example.com", role="manager"
)


def channels(answer: int | Exception = 200, **settings: Any) -> tuple[Channels, list[Any]]:
    """Channels, and the requests that reached the webhook."""
    requests: list[Any] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append((dict(request.headers), json.loads(request.content)))
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers={"Location": "https://elsewhere.example.com/"})

    made = Channels("Cluster", Budgets(**settings), transport=httpx.MockTransport(respond))
    return made, requests


def test_the_webhook_gets_the_notice_and_the_people_to_tell() -> None:
    made, requests = channels(webhook=URL, webhook_token="a-token")
    made.tell(NOTICE, [EVE])
    ((headers, body),) = requests
    assert headers["authorization"] == "Bearer a-token"
    assert body == {
        "format": 1,
        "event": "budget_threshold_crossed",
        "id": "00000000-0000-0000-0000-000000000001/cpu/10/80",
        "offering": "Cluster",
        "percent": 80,
        "account": "a_ocean",
        "resource": {"uuid": str(UUID(int=1)), "name": BUDGET.title},
        "project": "climate",
        "ends_on": "2027-03-01",
        "component": "cpu",
        "label": "CPU",
        "unit": "k-Hours",
        "limit": 10.0,
        "used": 8.0,
        "used_percent": 80.0,
        "recipients": [{"role": "manager", "name": "Eve", "email": "eve@example.com"}],
    }


@pytest.mark.parametrize("answer", [500, 404, 302, httpx.ConnectError(f"cannot reach {URL}")])
def test_a_webhook_that_fails_is_tried_again_and_its_url_is_not_shown(
    answer: int | Exception,
) -> None:
    made, requests = channels(answer, webhook=URL)
    with pytest.raises(TemporaryError) as caught:
        made.tell(NOTICE, [])
    assert len(requests) == 1  # a redirect is not followed
    assert "very-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_command_reads_the_notice_and_gets_no_text_of_strangers_as_an_argument(
    tmp_path: Path,
) -> None:
    script = tmp_path / "mail"
    script.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\ncat > {tmp_path}/input\n'
    )
    script.chmod(0o755)
    made, _ = channels(command=[str(script), "--of={account}", "{component}", "{percent}"])
    made.tell(NOTICE, [EVE])
    assert (tmp_path / "words").read_text() == "--of=a_ocean\ncpu\n80\n"
    given = json.loads((tmp_path / "input").read_text())
    assert (given["percent"], given["recipients"][0]["email"]) == (80, "eve@example.com")


@pytest.mark.parametrize("command", ["/bin/false", "/nowhere/mail"])
def test_a_command_that_fails_is_tried_again(command: str) -> None:
    made, _ = channels(command=[command])
    with pytest.raises(TemporaryError):
        made.tell(NOTICE, [])


@pytest.mark.parametrize("mode", ["0640", "0644"])
def test_the_file_has_its_mode_and_names_no_people(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "cluster.json"
    made, _ = channels(file=str(path), file_mode=mode)
    for _ in range(2):
        made.publish([BUDGET])
    found = json.loads(path.read_text())
    assert found["offering"] == "Cluster"
    assert [each["account"] for each in found["budgets"]] == ["a_ocean"]
    assert "recipients" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    assert [each.name for each in tmp_path.iterdir()] == ["cluster.json"]


def test_the_file_replaces_a_link_instead_of_what_it_leads_to(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "cluster.json"
    victim.write_text("stays")
    path.symlink_to(victim)
    channels(file=str(path))[0].publish([])
    assert victim.read_text() == "stays"
    assert not path.is_symlink()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "cluster.json"
    with pytest.raises(TemporaryError, match=f"{path}: the budget file cannot be written"):
        channels(file=str(path))[0].publish([])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"webhook": "chat.example.com/hook"}, "expected a URL"),
        ({"command": ["mail"]}, "absolute path"),
        ({"file": "budgets.json"}, "absolute path"),
        ({"file_mode": "0666"}, "only the owner write"),
        ({"warn_at_percent": [0]}, "greater than or equal to 1"),
        ({"notify_roles": ["owner"]}, "manager"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Budgets(**settings)
    assert "chat.example.com/hook" not in str(caught.value).replace("hooks/budgets", "")


def test_without_channels_only_the_log_is_told(tmp_path: Path) -> None:
    made, requests = channels()
    made.tell(NOTICE, [EVE])
    made.publish([BUDGET])
    assert requests == []
    assert not [*tmp_path.iterdir()]
