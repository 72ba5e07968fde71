"""The pages of the endpoint: who may see them, whom they name, and what hostile texts can do."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.patience import patience
from waldur_site_agent.cycles.site import CycleReport, RefusedPlan
from waldur_site_agent.model.budget_notices import Consumption
from waldur_site_agent.service.allowances import Allowances
from waldur_site_agent.service.endpoint import Endpoint
from waldur_site_agent.service.health import Health
from waldur_site_agent.service.markup import element
from waldur_site_agent.service.overview import ComponentUsage, Overview, ResourceView
from waldur_site_agent.service.pages import STYLE, Pages, PageSettings, is_local

UUID = "9ed3f605-2561-4c0f-b19c-9eed27a48f6a"
HOSTILE = "</td><script>alert(1)</script><svg onload=x>\x1b[31m\u202e\"'&"
VIEW = ResourceView(
    uuid=UUID,
    account="a_ocean",
    name=HOSTILE,
    project=HOSTILE,
    state="OK",
    access="normal",
    members=("ada01", "bob01"),
    month="2026-05",
    usage=(
        ComponentUsage(
            component="cpu",
            used=Decimal("9.10"),
            of_limit=Consumption(limit=Decimal(10), used=Decimal("9.10")),
            by_user={"ada01": Decimal("9.00"), HOSTILE: Decimal("0.10")},
        ),
    ),
    days=(("2026-05-01", {"cpu": Decimal("4.00")}), ("2026-05-02", {"cpu": Decimal("5.10")})),
)


class Known(Overview):
    """What passes have found, without passes."""

    def offerings(self) -> dict[str, list[ResourceView]]:
        return {"HPC": [VIEW]}

    def resource(self, uuid: str) -> tuple[str, ResourceView] | None:
        return ("HPC", VIEW) if uuid == UUID else None


Serve = Callable[..., Endpoint]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    journal = tmp_path / "journal.jsonl"
    now = datetime.now(UTC).isoformat()
    common = {"time": now, "offering": "HPC", "mode": "membership_sync", "result": "done"}
    entries: list[dict[str, Any]] = [
        {"action": "AddMembers", "resource": "a_ocean", "members": ["ada01"], "reason": "in team"},
        {"action": "change_offering_user", "side": "waldur", "about": "ada", "reason": "name ada01",
         "changes": [{"field": "username", "old": None, "new": "ada01"}]},
        {"action": "allow", "by": "ada (sudo)", "digest": "ab" * 32, "reason": "ada01 left"},
        {"action": HOSTILE, "side": "waldur", "about": HOSTILE},
    ]  # fmt: skip
    journal.write_text("".join(json.dumps(common | entry) + "\n" for entry in entries))
    allowances = Allowances(tmp_path / "refusals")
    allowances.record(
        RefusedPlan("cd" * 32, "HPC", "members", "too many", {"a_ocean": ["ada01"]}, time.time())
    )
    health = Health()
    worker = health.worker_health("HPC", "membership_sync")
    worker.fail(HOSTILE)
    worker.waiting = {"members": ["ada01: waits"]}
    opened: list[Endpoint] = []

    def make(address: str = "127.0.0.1:0", **changes: Any) -> Endpoint:
        settings = PageSettings(
            **{"address": changes.pop("seen_as", address), "journal": journal, **changes}
        )
        pages = Pages(settings=settings, health=health, overview=Known(), allowances=allowances)
        endpoint = Endpoint(address, health, lambda: b"", pages)
        opened.append(endpoint)
        return endpoint

    yield make
    for endpoint in opened:
        endpoint.close()


def get(endpoint: Endpoint, path: str = "/", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=patience())
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


PATHS = ("/", f"/resource/{UUID}")


@pytest.mark.parametrize("path", PATHS)
def test_hostile_texts_stay_text(serve: Serve, path: str) -> None:
    status, page, headers = get(serve(names_people=True), path)
    assert status == 200
    assert "<script" not in page
    assert "onload=x>" not in page.replace("&lt;svg onload=x&gt;", "")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", page)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", PATHS)
def test_nobody_is_named_unless_the_site_asks_for_it(serve: Serve, path: str) -> None:
    _, page, _ = get(serve(), path)
    assert "ada" not in page
    assert "bob" not in page
    _, named, _ = get(serve(names_people=True), path)
    assert "ada01" in named


def test_a_refused_plan_is_shown_with_the_command_that_allows_it(serve: Serve) -> None:
    _, page, _ = get(serve())
    assert f"waldur-site-agent allow {'cd' * 8}<" in page
    assert "a_ocean: 1 person" in page


def test_a_token_is_asked_for_where_the_site_has_set_one(serve: Serve) -> None:
    endpoint = serve(token="s3cret")
    status, page, headers = get(endpoint)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "a_ocean" not in page
    assert get(endpoint, Authorization="Bearer wrong")[0] == 401
    assert get(endpoint, Authorization="Basic s3cret")[0] == 401
    assert get(endpoint, Authorization="Bearer s3cret")[0] == 200


def test_without_a_token_nothing_is_shown_to_other_machines(serve: Serve) -> None:
    endpoint = serve(seen_as="0.0.0.0:9464")
    assert [get(endpoint, path)[0] for path in PATHS] == [403, 403]
    assert get(endpoint, "/health")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:9464", 200), ("127.0.0.1", 200), ("[::1]:1", 200), ("evil.example:9464", 403),
     ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost@evil", 403),
     ("evil/localhost", 403), ("10.0.0.1", 403), ("LOCALHOST", 200)],
)  # fmt: skip
def test_a_web_site_whose_name_points_here_reads_nothing(
    serve: Serve, host: str, status: int
) -> None:
    assert get(serve(), Host=host)[0] == status


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://localhost/ HTTP/1.1\r\nHost: evil.example",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\nHost: localhost",
        b"GET / HTTP/1.1\r\nhOsT : evil.example\r\nX-Forwarded-Host: localhost",
        b"HEAD / HTTP/1.1\r\nHost: evil.example",
        b"GET /?x=http://localhost/ HTTP/1.1\r\nHost: evil.example",
    ],
    ids=ascii,
)
def test_no_other_part_of_a_request_counts_as_its_host(serve: Serve, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", serve().port), timeout=patience()) as client:
        client.sendall(head + b"\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"a_ocean" not in answer


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic c2VjcmV0",
        "secret",
        "Bearer secre",
        "Bearer secret x",
        "Bearer \xe9",
    ],
)
def test_only_the_whole_token_opens_the_pages(serve: Serve, given: str) -> None:
    endpoint = serve(token="secret")
    for path in (*PATHS, "/?token=secret"):
        status, text, _ = get(endpoint, path, Authorization=given)
        assert (status, "a_ocean" in text) == (401, False)


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("unix:/run/a", True),
     ("0.0.0.0:1", False), (":1", False), ("[::]:1", False), ("10.0.0.1:1", False)],
)  # fmt: skip
def test_only_loopback_addresses_and_sockets_are_local(address: str, local: bool) -> None:
    assert is_local(address) is local


@pytest.mark.parametrize("path", ["/resource/../../etc/passwd", "/resource/1", "/x", "/resource/"])
def test_other_paths_are_not_found(serve: Serve, path: str) -> None:
    assert get(serve(), path)[0] == 404


class Structure(HTMLParser):
    """What a reader of screens goes by."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.mark.parametrize("path", PATHS)
def test_readers_of_screens_find_their_way(serve: Serve, path: str) -> None:
    found = Structure(get(serve(), path)[1])
    assert [len(found.all(each)) for each in ("main", "header", "footer", "h1")] == [1, 1, 1, 1]
    assert found.all("html")[0]["lang"] == "en"
    assert len(found.all("table")) == len(found.all("caption")) > 0
    assert {each.get("scope") for each in found.all("th")} <= {"row", "col"}
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    labels = {each.get("aria-labelledby") for each in found.all("section")}
    assert labels <= {each.get("id") for each in found.all("h2")}
    for drawing in found.all("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing.get("aria-label")
    assert found.all("script", "img", "form", "iframe", "link") == []


def luminance(colour: str) -> float:
    full = colour if len(colour) == 7 else "#" + "".join(c * 2 for c in colour[1:])
    parts = [int(full[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_can_be_told_from_their_ground(scheme: int) -> None:
    block = re.findall(r":root\{(.*?)\}", STYLE, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+):(#\w+)", block))
    paper = luminance(colours["paper"])
    for name in ("ink", "soft", "fine", "high", "over", "good"):
        lighter, darker = sorted((luminance(colours[name]), paper), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


def test_markup_escapes_what_is_not_markup() -> None:
    inner = element("b", "<i>")
    assert element("p", inner, "&", title='"<') == (
        '<p title="&quot;&lt;"><b>&lt;i&gt;</b>&amp;</p>'
    )


def test_a_pass_without_a_report_of_its_own_changes_nothing_to_see() -> None:
    overview = Overview()
    overview.take(CycleReport(offering="HPC", trouble="away"))
    assert overview.offerings() == {}
