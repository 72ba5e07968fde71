"""The pages of the endpoint: ``/`` and one for each resource, rendered here, without a script.

People's names are left out unless the site asks for them; then members, users of plots and the
journal's entries are shown with names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from waldur_site_agent.planning.plan import SHOWN_DIGEST
from waldur_site_agent.service.allowances import Allowances
from waldur_site_agent.service.charts import by_day, by_user, share_bar
from waldur_site_agent.service.health import Health
from waldur_site_agent.service.journal_reading import Entry, entries_in
from waldur_site_agent.service.markup import Content, Markup, element, inside
from waldur_site_agent.service.overview import (
    ComponentUsage,
    Overview,
    ResourceView,
    age_text,
    shown_amount,
)

HTML = "text/html; charset=utf-8"
MOST_RESOURCES = 300
MOST_ENTRIES = 20
MOST_USERS = 20
_TAIL_BYTES = 1 << 18
_RESOURCE = re.compile(r"/resource/([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})")

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#4d5763;--paper:#fff;--ground:#dde3ea;
--line:#c4ccd5;--fine:#1f6fb2;--high:#8a5a00;--over:#b3261e;--good:#1a6b34}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf2;--soft:#aab6c2;--paper:#14181d;
--ground:#333c46;--line:#4a5561;--fine:#6cb2ee;--high:#f0b64c;--over:#ff8a80;--good:#7fd69a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1rem;font:1rem/1.5 system-ui,sans-serif;
color:var(--ink);background:var(--paper)}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.15rem;margin:1.6rem 0 .4rem}h3{font-size:1rem}
a{color:var(--fine)}a:focus-visible,summary:focus-visible,div:focus-visible{outline:3px solid
var(--fine);outline-offset:2px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
caption{text-align:left;color:var(--soft);padding:.2rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}
thead th{white-space:nowrap}
tbody th{overflow-wrap:break-word;min-width:6rem}
code{background:var(--ground);padding:.1rem .3rem;border-radius:3px;overflow-wrap:anywhere}
.ok{color:var(--good)}.failing{color:var(--high)}.stuck,.dead,.refused{color:var(--over)}
.soft{color:var(--soft)}
.skip{position:absolute;left:-99rem}.skip:focus{position:static}
svg text{fill:var(--ink);font-size:12px}svg line{stroke:var(--line)}
svg .ground{fill:var(--ground)}svg .fine{fill:var(--fine)}svg .high{fill:var(--high)}
svg .over{fill:var(--over)}
svg.share{width:7rem;height:.6rem;display:block}
svg.plot{width:100%;max-width:48rem;height:auto;display:block}
@media(max-width:40rem){body{padding:.6rem}
svg.plot text{font-size:19px}
table.cards thead{position:absolute;left:-99rem}
table.cards tr{display:block;border-bottom:1px solid var(--line);padding:.4rem 0}
table.cards th,table.cards td{display:block;border:0;padding:.1rem 0}
table.cards td[data-label]::before{content:attr(data-label) ": ";color:var(--soft)}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """What the site has said about the pages."""

    address: str
    token: str = ""
    """Without one, pages are served on loopback addresses and unix sockets only."""
    names_people: bool = False
    units: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By offering and component."""
    journal: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Renders pages from what the process knows; reads the end of the journal, nothing else."""

    settings: PageSettings
    health: Health
    overview: Overview
    allowances: Allowances

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[HTTPStatus, bytes] | None:
        """A page, or why it is not shown; ``None``: there is no such page."""
        match = _RESOURCE.fullmatch(path)
        if path not in ("", "/") and match is None:
            return None
        refusal = self._refusal(headers)
        if refusal is not None:
            return refusal
        if match is None:
            return HTTPStatus.OK, self._index().encode()
        found = self.overview.resource(match[1])
        if found is None:
            return HTTPStatus.NOT_FOUND, b"no pass has seen this resource since the agent started\n"
        return HTTPStatus.OK, self._resource(*found).encode()

    def _refusal(self, headers: Mapping[str, str]) -> tuple[HTTPStatus, bytes] | None:
        token = self.settings.token
        if token:
            given = headers.get("authorization", "").partition(" ")
            is_bearer = given[0].lower() == "bearer"
            if is_bearer and hmac.compare_digest(given[2].strip().encode(), token.encode()):
                return None
            return HTTPStatus.UNAUTHORIZED, b"a bearer token is needed (status_page_token)\n"
        if not is_local(self.settings.address):
            return (
                HTTPStatus.FORBIDDEN,
                b"pages need status_page_token on an address that is not loopback\n",
            )
        if not self.settings.address.startswith("unix:") and not _is_local_name(
            headers.get("host", "")
        ):
            # a web site whose name points here must not read the page with a visitor's browser
            return HTTPStatus.FORBIDDEN, b"ask for localhost or 127.0.0.1\n"
        return None

    def _index(self) -> Markup:
        report = self.health.report()
        offerings = self.overview.offerings()
        names = dict.fromkeys([w["offering"] for w in report["workers"]] + [*offerings])
        content = [
            element("p", "Status: ", _word(str(report["status"])), f", since {report['since']}"),
            self._refused(),
            [
                self._offering(
                    name,
                    [w for w in report["workers"] if w["offering"] == name],
                    offerings.get(name, []),
                )
                for name in names
            ],
            self._changes(self._entries(), "Last changes"),
        ]
        return _page("waldur-site-agent", "Offerings of this agent", content)

    def _refused(self) -> Content:
        try:
            plans = self.allowances.refused()
        except OSError:
            return None
        items = []
        for plan in plans:
            what = [
                element("li", f"{account}: {self._people(changed)}")
                for account, changed in [*plan.changes.items()][:MOST_ENTRIES]
            ]
            command = f"waldur-site-agent allow {plan.digest[:SHOWN_DIGEST]}"
            how: Content = (
                "Allowed; the next cycle carries it out."
                if self.allowances.allowed(plan.digest)
                else ["Allow exactly this, on the agent's machine: ", element("code", command)]
            )
            reason = plan.reason.partition(";")[0]
            items.append(
                element(
                    "li",
                    element("strong", f"{plan.offering}, {plan.job}", class_="refused"),
                    f": {reason}",
                    element("ul", what),
                    element("p", how),
                )
            )
        if not items:
            return None
        return _section("Refused plans", element("ul", items))

    def _people(self, changed: Sequence[str]) -> str:
        """Who would be removed, or how many; what becomes of accounts is in brackets."""
        if self.settings.names_people:
            return ", ".join(changed)
        others = [each for each in changed if each.startswith("(")]
        number = len(changed) - len(others)
        return ", ".join([*([_count(number)] if number else []), *others])

    def _offering(
        self, name: str, workers: Sequence[Mapping[str, Any]], resources: Sequence[ResourceView]
    ) -> Markup:
        rows = [
            element(
                "tr",
                element("th", worker["mode"], scope="row"),
                _cell("state", _word(str(worker["status"]))),
                _cell("last success", age_text(worker["last_success"])),
                _cell("waiting", len(worker.get("waiting", ()))),
                _cell("reason", worker["trouble"] or "-"),
            )
            for worker in workers
        ]
        jobs = _table(
            f"Jobs of {name}", ("job", "state", "last success", "waiting", "reason"), rows
        )
        waiting = [line for worker in workers for line in worker.get("waiting", ())]
        listed = element("ul", [element("li", line) for line in waiting[:MOST_ENTRIES]])
        return _section(
            name,
            jobs if rows else None,
            listed if waiting and self.settings.names_people else None,
            self._resources(name, resources),
        )

    def _resources(self, offering: str, resources: Sequence[ResourceView]) -> Content:
        if not resources:
            return element("p", "No pass has read the resources yet.", class_="soft")
        first = sorted(resources, key=lambda each: -max(_shares(each), default=0))
        rows = [
            element(
                "tr",
                element(
                    "th",
                    element("a", each.account or each.name, href=f"/resource/{each.uuid}"),
                    scope="row",
                ),
                _cell("resource", f"{each.name}, {each.project}" if each.project else each.name),
                _cell("state", _state_of(each)),
                _cell("members", _members_of(each)),
                _cell("used", self._used(offering, each)),
            )
            for each in first[:MOST_RESOURCES]
        ]
        columns = ("account", "resource", "state", "members", "used of the limit")
        more = len(resources) - len(rows)
        return [
            _table(f"Resources of {offering}", columns, rows),
            element("p", f"and {more} more, of which less is used") if more > 0 else None,
        ]

    def _used(self, offering: str, view: ResourceView) -> Content:
        units = self.settings.units.get(offering, {})
        if not view.usage:
            limits = ", ".join(f"{name} {value}" for name, value in view.limits.items())
            return f"not read yet; limits: {limits}" if limits else "not read yet"
        return [element("div", self._of_limit(each, units)) for each in view.usage]

    @staticmethod
    def _of_limit(usage: ComponentUsage, units: Mapping[str, str]) -> Content:
        name, unit = usage.component, units.get(usage.component, "")
        if usage.of_limit is None:
            return f"{name} {shown_amount(usage.used)} {unit}".rstrip() + ", no limit"
        used, limit = shown_amount(usage.of_limit.used), shown_amount(usage.of_limit.limit)
        text = f"{name} {used} of {limit} {unit}".rstrip()
        if usage.share is None:
            return text
        return [f"{text} ({usage.share * 100:.0f} %)", share_bar(usage.share)]

    def _resource(self, offering: str, view: ResourceView) -> Markup:
        facts = [
            ("resource", view.name), ("project", view.project), ("offering", offering),
            ("state", _state_of(view)), ("access", view.access), ("UUID", view.uuid),
        ]  # fmt: skip
        rows = [
            element("tr", element("th", name, scope="row"), element("td", value))
            for name, value in facts
        ]
        content = [
            element("p", element("a", "All offerings", href="/")),
            _table("What the agent knows", (), rows, cards=False),
            _section("Members", element("p", self._member_text(view))),
            _section(f"Usage in {view.month}", self._usage(offering, view)) if view.usage else None,
            self._changes(
                (e for e in self._entries() if view.account and e.about == view.account),
                "Last changes",
            ),
        ]
        return _page(view.account or view.name, view.account or view.name, content)

    def _member_text(self, view: ResourceView) -> str:
        if view.members is None:
            return "not read yet"
        names = ", ".join(view.members) if self.settings.names_people else ""
        text = _members_of(view)
        return f"{text}: {names}" if names else text

    def _usage(self, offering: str, view: ResourceView) -> Iterator[Content]:
        units = self.settings.units.get(offering, {})
        for usage in view.usage:
            name, unit = usage.component, units.get(usage.component, "")
            yield element("h3", f"{name} {f'({unit})' if unit else ''}")
            if usage.used is not None:
                yield element("p", f"{shown_amount(usage.used)} {unit}".rstrip() + " this month")
            if usage.of_limit is not None:
                yield element("p", "Of the limit: ", self._of_limit(usage, units))
            days = [(day[-2:], amounts[name]) for day, amounts in view.days if name in amounts]
            if days:
                title = f"{name} by day in {view.month} (read once an hour)"
                yield element("div", by_day(title, days))
                yield _figures(title, ("day", unit or "amount"), days)
            people = self._by_user(usage)
            if people:
                title = f"{name} by user in {view.month}"
                yield element("div", by_user(title, people))
                yield _figures(title, ("user", unit or "amount"), people)

    def _by_user(self, usage: ComponentUsage) -> list[tuple[str, Any]]:
        ordered = sorted(usage.by_user.items(), key=lambda each: (-each[1], each[0]))[:MOST_USERS]
        if self.settings.names_people:
            return ordered
        return [(f"user {n}", amount) for n, (_, amount) in enumerate(ordered, start=1)]

    def _entries(self) -> list[Entry]:
        """The last entries of the journal, newest first."""
        path = self.settings.journal
        if path is None:
            return []
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - _TAIL_BYTES))
                lines = stream.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        return [*entries_in(lines)][::-1]

    def _changes(self, entries: Iterable[Entry], title: str) -> Content:
        if self.settings.journal is None:
            return None
        rows = [
            element(
                "tr",
                element("th", f"{entry.time:%Y-%m-%d %H:%M:%S}", scope="row"),
                _cell("what", about),
                _cell("change", text + (" (failed)" if entry.failed else "")),
                _cell("why", entry.reason if self.settings.names_people or is_open else "-"),
            )
            for entry, (about, text, is_open) in (
                (e, self._told(e)) for e in [*entries][:MOST_ENTRIES]
            )
        ]
        columns = ("time (UTC)", "what", "change", "why")
        return _section(title, _table("From the journal, newest first", columns, rows))

    def _told(self, entry: Entry) -> tuple[str, str, bool]:
        """What an entry is about, and its text; and whether its reason names nobody."""
        if self.settings.names_people:
            return entry.about or "-", entry.text, True
        action = str(entry.raw.get("action"))
        number = _count(len(entry.members))
        texts = {
            "AddMembers": f"added {number}",
            "RemoveMembers": f"removed {number}",
            "CreateHomeDirectories": f"created the home directories of {number}",
            "SetMemberLimits": "set limits of a member",
            "allow": "a refused plan was allowed",
            "use_allowance": "an allowance was used",
        }
        if action in texts:
            return entry.about or "-", texts[action], action.endswith("Members")
        if action in _ABOUT_ACCOUNTS:
            return entry.about or "-", entry.text, action != "set_as_erred"
        return "-", f"in Waldur: {action}", False


_ABOUT_ACCOUNTS = frozenset(
    {"CreateResource", "DeleteResource", "MoveContainer", "SetLimits", "SetAccess", "SetBudget",
     "ResetUsage", "CreateProjectDirectory", "set_backend_id", "set_limits", "set_as_ok",
     "set_as_erred", "set_usage", "refresh_last_sync"}
)  # fmt: skip


def is_local(address: str) -> bool:
    """Whether only users of this machine reach an address: a unix socket, or a loopback one."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_local_name(host: str) -> bool:
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return name in _LOCAL_NAMES


def _page(title: str, heading: str, content: Content) -> Markup:
    now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "body",
        element("a", "Skip to content", href="#content", class_="skip"),
        element("header", element("h1", heading)),
        element("main", content, id="content", tabindex="-1"),
        element("footer", element("p", f"As of {now} UTC. Reload for news.", class_="soft")),
    )
    return Markup(f"<!doctype html>{element('html', head, body, lang='en')}")


def _section(title: str, *content: Content) -> Markup:
    slug = "s-" + hashlib.sha256(title.encode()).hexdigest()[:8]
    return element("section", element("h2", title, id=slug), content, aria_labelledby=slug)


def _table(
    caption: str, columns: Sequence[str], rows: Sequence[Markup], *, cards: bool = True
) -> Markup:
    head = element("thead", element("tr", [element("th", name, scope="col") for name in columns]))
    table = element(
        "table",
        element("caption", caption),
        head if columns else None,
        element("tbody", rows),
        class_="cards" if cards else None,
    )
    return element("div", table, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _figures(title: str, columns: tuple[str, str], values: Sequence[tuple[str, Any]]) -> Markup:
    rows = [
        element("tr", element("th", name, scope="row"), element("td", f"{amount:f}"))
        for name, amount in values
    ]
    table = _table(title, columns, rows, cards=False)
    return element("details", element("summary", "The same as a table"), table)


def _cell(label: str, *content: Content) -> Markup:
    return element("td", content, data_label=label)


def _word(status: str) -> Markup:
    known = status if status in ("ok", "failing", "stuck", "dead") else None
    return element("strong", status, class_=known)


def _state_of(view: ResourceView) -> str:
    parts = [view.state, view.access if view.access not in ("", "normal") else ""]
    parts.append("missing in the backend" if view.missing else "")
    return ", ".join(filter(None, parts))


def _members_of(view: ResourceView) -> str:
    if view.members is None:
        return "not read yet"
    waiting = f", {view.waiting} waiting" if view.waiting else ""
    return f"{len(view.members)}{waiting}"


def _shares(view: ResourceView) -> Iterator[float]:
    yield from (float(each.share) for each in view.usage if each.share is not None)


def _count(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"


__all__ = ["HEADERS", "HTML", "PageSettings", "Pages", "inside", "is_local"]
