"""Reads the journal back: who was added to or removed from what, when, why, in which cycle."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_AGE = re.compile(r"(\d+)\s*(min|m|h|d|w)")
_UNITS = {"min": "minutes", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change, in the words of people."""

    time: datetime
    offering: str
    mode: str
    cycle: str
    about: str
    """The account, user or order."""
    text: str
    reason: str = ""
    result: str = ""
    error: str = ""
    members: tuple[str, ...] = ()
    raw: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the change did not happen."""
        return self.result == "failed"


def since_of(text: str, now: datetime) -> datetime:
    """The moment that ``2026-11-01``, ``2026-11-01T12:00`` or ``36h`` means.

    Raises:
        ValueError: it is none of these.
    """
    if match := _AGE.fullmatch(text.strip()):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo else moment.astimezone()


def read_journal(
    path: Path, name: str = "", since: datetime | None = None, most: int | None = None
) -> list[Entry]:
    """The entries about a name, oldest first: of the file and of the one before its rotation.

    Raises:
        OSError: the journal cannot be read.
    """
    found: deque[Entry] = deque(maxlen=most)
    before = path.with_name(f"{path.name}.1")
    for file in (before, path):
        if file == before and not before.is_file():
            continue
        with file.open(encoding="utf-8", errors="replace") as stream:
            for entry in entries_in(stream):
                if (since is None or entry.time >= since) and _is_about(entry, name):
                    found.append(entry)
    return list(found)


def entries_in(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of lines of JSON; a line that is none, such as half of one, is passed over."""
    for line in lines:
        if len(line) > LONGEST_LINE:
            continue
        try:
            raw = json.loads(line)
            yield _entry(raw)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue


def _entry(raw: Mapping[str, Any]) -> Entry:
    members = [str(each) for each in raw.get("members") or raw.get("users") or ()]
    skipped = raw.get("left_out") or {}
    return Entry(
        time=datetime.fromisoformat(raw["time"]).astimezone(UTC),
        offering=str(raw.get("offering", "")),
        mode=str(raw.get("mode", "")),
        cycle=str(raw.get("cycle") or ""),
        about=_about(raw),
        text=_text(raw, [each for each in members if each not in skipped]),
        reason=str(raw.get("reason") or ""),
        result=str(raw.get("result") or ""),
        error=str(raw.get("error") or ""),
        members=tuple(members),
        raw=raw,
    )


def _about(raw: Mapping[str, Any]) -> str:
    placement = raw.get("placement") or {}
    moved = (raw.get("containers") or [{}])[-1]
    names = (raw.get("resource"), raw.get("about"), placement.get("id"), moved.get("id"))
    return str(next(filter(None, names), ""))


def _text(raw: Mapping[str, Any], members: list[str]) -> str:
    who = ", ".join(members) or "nobody"
    whose = f" of {raw['member']}" if raw.get("member") else ""
    digest = str(raw.get("digest") or "")[:16]
    texts = {
        "AddMembers": f"added {who}",
        "RemoveMembers": f"removed {who}",
        "CreateResource": "created the account",
        "DeleteResource": "deleted the account",
        "SetAccess": f"set access to {raw.get('access')}",
        "SetLimits": f"set limits: {_amounts(raw.get('limits'))}",
        "SetMemberLimits": f"set limits{whose}: {_amounts(raw.get('limits'))}",
        "CreateHomeDirectories": f"created the home directories of {who}",
        "CreateProjectDirectory": "created the project directory",
        "MoveContainer": f"moved the account below {_new_parent(raw)}",
        "SetBudget": f"set the budget: {_budget(raw)}",
        "ResetUsage": f"reset the usage for {raw.get('period')}",
        "allow": f"{raw.get('by')} allowed the refused plan {digest}",
        "use_allowance": f"used the allowance {digest} of {raw.get('by')}",
    }
    action = str(raw["action"])
    in_waldur = f"in Waldur: {_changes(raw)}" if raw.get("side") == "waldur" else action
    return texts.get(action, in_waldur)


def _new_parent(raw: Mapping[str, Any]) -> str:
    return str((raw.get("containers") or [{}])[-1].get("parent", ""))


def _budget(raw: Mapping[str, Any]) -> str:
    amounts = _amounts(raw.get("limits")) + (" per job" if raw.get("per_job") else "")
    share = "" if raw.get("share") is None else f"fairshare {raw['share']}"
    return ", ".join(filter(None, (amounts, share)))


def _amounts(limits: Any) -> str:
    if not isinstance(limits, Mapping):
        return ""
    return ", ".join(
        f"{name} {'none' if value is None else value}" for name, value in limits.items()
    )


def _changes(raw: Mapping[str, Any]) -> str:
    changes = [
        f"{each['field']} {_shown(each['old'])} -> {_shown(each['new'])}"
        for each in raw.get("changes") or ()
        if isinstance(each, Mapping)
    ]
    return "; ".join(changes) or str(raw["action"])


def _shown(value: Any) -> str:
    return "none" if value is None else str(value) or '""'


def _is_about(entry: Entry, name: str) -> bool:
    if not name:
        return True
    raw = entry.raw
    exact = {
        entry.about, entry.offering, *entry.members, str(raw.get("member") or ""),
        str(raw.get("uuid") or ""), str(raw.get("order") or ""), entry.cycle,
    }  # fmt: skip
    changed = [each for each in raw.get("changes") or () if isinstance(each, Mapping)]
    fields = [str(each.get(key)) for each in changed for key in ("old", "new")]
    in_usage = any(str(each.get("field")).endswith(f" of {name}") for each in changed)
    allowed = raw.get("changes") if isinstance(raw.get("changes"), Mapping) else {}
    told = {*exact, *fields, *(allowed or {}), str(raw.get("digest") or "")[:16]}
    return in_usage or name.lower() in {each.lower() for each in told}
