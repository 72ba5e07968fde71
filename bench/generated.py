"""A site of any size whose answers are made when they are asked for: nothing of it is stored.

Each resource has a project and ten members of its own, and its account on the cluster. Waldur and
the cluster agree, so a pass over them has nothing to change. Orders can be added: an earlier run
has approved them and left them, in five projects that have a team of five each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import httpx

from waldur_site_agent.backends.processes import CommandResult

MEMBERS = 10
ORDER_PROJECTS = 5
ORDER_TEAM = 5
OFFERING = f"{1:032x}"
_REFUSED = "sacctmgr: error: Sending PersistInit msg: Connection refused\n"
CUSTOMER = f"{2:032x}"
PROVIDER = f"{3:032x}"
NOW = datetime.now(UTC).replace(microsecond=0).isoformat()
_CREATED = "2026-01-01T00:00:00Z"

Row = Callable[[int], str]
_RESOURCES = "marketplace-provider-resources"


def _uuid(kind: int, number: int) -> str:
    return f"{kind:02x}{number:030x}"


def _resource(n: int) -> str:
    return (
        f'{{"uuid":"{_uuid(0x10, n)}","created":"{_CREATED}","modified":"{_CREATED}",'
        f'"name":"Run {n}","slug":"run-{n}","state":"OK","backend_id":"a_run-{n}",'
        '"backend_metadata":{"qos":"normal"},"limits":{"cpu":10},"attributes":{},"options":null,'
        '"plan_uuid":null,"end_date":null,"paused":false,"downscaled":false,'
        f'"restrict_member_access":false,"error_message":"","last_sync":"{NOW}",'
        f'"offering_uuid":"{OFFERING}","project_uuid":"{_uuid(0x20, n)}",'
        f'"project_name":"Project {n}","project_slug":"p{n}","project_end_date":null,'
        f'"customer_uuid":"{CUSTOMER}","customer_name":"Uni","customer_slug":"uni"}}'
    )


def _ordered_resource(n: int) -> str:
    return (
        f'{{"uuid":"{_uuid(0x11, n)}","created":"{_CREATED}","modified":"{_CREATED}",'
        f'"name":"New {n}","slug":"new-{n}","state":"Creating","backend_id":"",'
        '"backend_metadata":{},"limits":{"cpu":10},"attributes":{},"paused":false,'
        f'"order_in_progress":{{"uuid":"{_uuid(0x12, n)}","state":"executing"}},'
        f'"downscaled":false,"restrict_member_access":false,"offering_uuid":"{OFFERING}",{_of(n)}}}'
    )


def _order(n: int) -> str:
    return (
        f'{{"uuid":"{_uuid(0x12, n)}","type":"Create","state":"executing",'
        f'"created":"{_CREATED}","modified":"{_CREATED}","resource_name":"New {n}",'
        f'"marketplace_resource_uuid":"{_uuid(0x11, n)}","limits":{{"cpu":10}},"attributes":{{}},'
        f'"offering_uuid":"{OFFERING}",{_of(n)}}}'
    )


def _of(n: int) -> str:
    project = n % ORDER_PROJECTS
    return (
        f'"project_uuid":"{_uuid(0x21, project)}","project_name":"Ordering {project}",'
        f'"project_slug":"o{project}","customer_uuid":"{CUSTOMER}","customer_name":"Uni",'
        '"customer_slug":"uni"'
    )


def _team(ordered: int) -> str:
    first = ordered % ORDER_PROJECTS * ORDER_TEAM
    people = (
        f'{{"uuid":"{_uuid(0x40, n)}","username":"user{n}","role":"PROJECT.MEMBER"}}'
        for n in range(first, first + ORDER_TEAM)
    )
    return f"[{','.join(people)}]"


def _user(n: int) -> str:
    return (
        f'{{"uuid":"{_uuid(0x30, n)}","created":"{_CREATED}","modified":"{_CREATED}",'
        f'"username":"u{n}","state":"OK","is_restricted":false,"user_uuid":"{_uuid(0x40, n)}",'
        f'"user_username":"user{n}","user_full_name":"User {n}","user_first_name":"User",'
        f'"user_last_name":"{n}","user_email":"u{n}@example.org","offering_uuid":"{OFFERING}",'
        '"service_provider_comment":"","service_provider_comment_url":"","has_consent":true,'
        '"offering_has_active_tos":true}'
    )


def _role(n: int) -> str:
    return (
        f'{{"expiration_time":null,"project_uuid":"{_uuid(0x20, n // MEMBERS)}",'
        f'"role_name":"PROJECT.MEMBER","user_uuid":"{_uuid(0x40, n)}",'
        f'"user_username":"user{n}"}}'
    )


def _usage(n: int) -> str:
    month = datetime.now(UTC).strftime("%Y-%m-01")
    return (
        f'{{"uuid":"{_uuid(0x50, n)}","type":"cpu","usage":"0.00",'
        f'"resource_uuid":"{_uuid(0x10, n)}","billing_period":"{month}","date":"{NOW}",'
        f'"offering_uuid":"{OFFERING}"}}'
    )


def _page(row: Row, first: int, last: int) -> Iterator[bytes]:
    yield b"["
    for n in range(first, last):
        yield f"{',' if n > first else ''}{row(n)}".encode()
    yield b"]"


@dataclass
class GeneratedWaldur(httpx.BaseTransport):
    """Answers the requests of an agent as a Waldur with so many resources would."""

    resources: int
    orders: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.path.removeprefix("/api/").strip("/")
        name = path.rsplit("/", 1)[-1] if path.count("/") > 1 else path.partition("/")[0]
        self.requests[f"{request.method} {name}"] += 1
        if request.method != "GET":
            return httpx.Response(200, json={})
        if path == f"marketplace-provider-offerings/{OFFERING}":
            return httpx.Response(200, json=_OFFERING)
        if path == "users/me":
            return httpx.Response(200, json={"uuid": _uuid(0x60, 1), "username": "agent"})
        if path.startswith(f"{_RESOURCES}/"):
            number = int(path.split("/")[1][2:], 16)
            text = _team(number) if name == "team" else _ordered_resource(number)
            return httpx.Response(200, text=text, headers={"content-type": "application/json"})
        count, row = self._list(name, request.url.params)
        page, size = (int(request.url.params.get(k, "1")) for k in ("page", "page_size"))
        first, last = (page - 1) * size, min(page * size, count)
        if first >= max(count, 1):
            return httpx.Response(404, json={"detail": "Invalid page."})
        headers = {"x-result-count": str(count), "content-type": "application/json"}
        return httpx.Response(200, headers=headers, content=_page(row, first, last))

    def _list(self, name: str, query: httpx.QueryParams) -> tuple[int, Row]:
        members = self.resources * MEMBERS
        lists: dict[str, tuple[int, Row]] = {
            _RESOURCES: (self.resources + self.orders, self._resource),
            "marketplace-orders": (self.orders, _order),
            "marketplace-offering-users": (members, _user),
            "project_permissions": (members, _role),
            "marketplace-service-providers": (1, lambda _: json.dumps(_PROVIDER)),
            "marketplace-component-usages": (self.resources, _usage),
        }
        is_updating = query.get_list("state") == ["Updating"]
        return (0, str) if is_updating else lists.get(name, (0, str))

    def _resource(self, n: int) -> str:
        return _resource(n) if n < self.resources else _ordered_resource(n - self.resources)


_PROVIDER = {"uuid": PROVIDER, "customer_uuid": CUSTOMER, "customer_name": "Uni"}
_OFFERING: dict[str, Any] = {
    "uuid": OFFERING,
    "name": "Bench",
    "customer_uuid": CUSTOMER,
    "customer_name": "Uni",
    "type": "Marketplace.Slurm",
    "state": "Active",
    "components": [{"uuid": _uuid(0x70, 1), "type": "cpu", "name": "CPU", "billing_type": "limit"}],
    "plugin_options": {},
    "partitions": [],
    "qos_profiles": [],
}


@dataclass
class GeneratedSlurm:
    """Answers the commands of the plugin as the cluster of the same site would."""

    resources: int
    commands: Counter[str] = field(default_factory=Counter)
    added: list[str] = field(default_factory=list)
    """The rows of what was added since."""
    refused_every: int = 0
    """slurmdbd refuses each command of this number; 0: none."""

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """Answer one command at once."""
        answer: list[str] = []
        result = self.stream(argv, timeout, answer.extend)
        return replace(result, stdout="".join(f"{line}\n" for line in answer))

    def stream(
        self, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
    ) -> CommandResult:
        """Answer one command line by line."""
        del timeout
        self.commands[f"{argv[0]} {'write' if '-i' in argv else 'read'}"] += 1
        if self.refused_every and self.commands.total() % self.refused_every == 0:
            return CommandResult(tuple(argv), 1, "", _REFUSED)
        if argv[1:3] == ("-i", "add"):
            self._add(argv[3], dict(word.split("=", 1) for word in argv[4:]))
        read(chain(self._accounts(), self.added) if "account" in argv else iter(()))
        return CommandResult(tuple(argv), 0, "", "")

    def _add(self, kind: str, words: Mapping[str, str]) -> None:
        if kind == "account":
            limits = words.get("GrpTRESMins", "")
            row = f"|{words['parent']}|||||{limits}||{words['organization']}"
            self.added += (f"hpc|{name}{row}" for name in words["name"].split(","))
        elif words["account"] != "root":  # where they all are already
            self.added += (
                f"hpc|{account}||{user}||||||"
                for account in words["account"].split(",")
                for user in words["name"].split(",")
            )

    def _accounts(self) -> Iterator[str]:
        yield "hpc|c_uni|root|||||||c_uni"
        for n in range(self.resources):
            project, account = f"p_p{n}", f"a_run-{n}"
            yield f"hpc|{project}|c_uni|||||||{project}"
            yield f"hpc|{account}|{project}|||||cpu=600000||{project}"
            for user in range(n * MEMBERS, n * MEMBERS + MEMBERS):
                yield f"hpc|{account}||u{user}||||||{project}"
        yield "hpc|root||||normal||||root"
        for user in range(self.resources * MEMBERS):
            yield f"hpc|root||u{user}||||||root"
