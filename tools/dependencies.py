"""What the agent is built from: licences into the bill of materials, and known vulnerabilities.

``make build`` and ``make audit`` run it. The bill (CycloneDX) is uv's export of the lock file.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Json = dict[str, Any]

ECOSYSTEM = "PyPI"
_LONGEST_NAME = 64
_SAYS_NOTHING = ("UNKNOWN", "Dual License")
_CLASSIFIER = "License :: "


def licence_of(distribution: str) -> str:
    """The licence of an installed distribution, as its metadata says; empty if it says nothing."""
    try:
        found = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        return ""
    expression, stated = (_first(found, name) for name in ("License-Expression", "License"))
    is_a_name = len(stated) <= _LONGEST_NAME and "\n" not in stated and stated not in _SAYS_NOTHING
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in found.get_all("Classifier") or ()
        if text.startswith(_CLASSIFIER)
    ]
    return expression or (stated if is_a_name else "") or " or ".join(sorted(classifiers))


def _first(found: metadata.PackageMetadata, name: str) -> str:
    return next(iter(found.get_all(name) or ()), "").strip()


def with_licences(bill: Json, version: str) -> Json:
    """The bill of materials with the licence of each component that is installed here."""
    components = []
    for component in bill["components"]:
        licence = licence_of(component["name"])
        known = {"licenses": [{"license": {"name": licence}}]} if licence else {}
        components.append({**component, **known})
    described = {"type": "application", "name": "waldur-site-agent", "version": version}
    about = {**bill["metadata"]["component"], **described}
    return {**bill, "metadata": {**bill["metadata"], "component": about}, "components": components}


def licence_list(bill: Json) -> str:
    """A line for each component: name, version, licence."""
    lines = []
    for component in sorted(bill["components"], key=lambda each: str(each["name"])):
        names = [each["license"]["name"] for each in component.get("licenses", ())]
        known = ", ".join(names) or _why_unknown(component["name"])
        lines.append(f"{component['name']} {component.get('version', '')}: {known}")
    return "\n".join([*lines, ""])


def _why_unknown(distribution: str) -> str:
    installed = is_installed(distribution)
    return "not stated" if installed else "not installed here, only on other systems"


def is_installed(distribution: str) -> bool:
    """Whether this environment has it."""
    try:
        metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def days_since_the_newest(entries: Iterable[Json], now: datetime) -> int | None:
    """The age of a copy of the database: how long ago its newest entry was changed."""
    changed = [datetime.fromisoformat(each["modified"]) for each in entries if "modified" in each]
    return (now - max(changed)).days if changed else None


def advisories(database: Path) -> Iterator[Json]:
    """The entries of a copy of the OSV database: a directory, or ``all.zip`` of an ecosystem."""
    if database.is_dir():
        for file in sorted(database.rglob("*.json")):
            yield json.loads(file.read_text(encoding="utf-8"))
        return
    with zipfile.ZipFile(database) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def vulnerable(bill: Json, entries: Iterable[Json]) -> Iterator[tuple[str, str, str]]:
    """Component, advisory and its summary, for each component that has a known vulnerability."""
    versions: dict[str, list[str]] = defaultdict(list)
    for component in bill["components"]:
        versions[canonicalize_name(component["name"])].append(component.get("version", ""))
    for entry in entries:
        if entry.get("withdrawn"):
            continue
        found = {
            f"{package['name']} {version}"
            for affected in entry.get("affected", ())
            if (package := affected.get("package", {})).get("ecosystem") == ECOSYSTEM
            for version in versions.get(canonicalize_name(package["name"]), ())
            if version and is_affected(version, affected)
        }
        yield from ((component, entry["id"], entry.get("summary", "")) for component in found)


def is_affected(version: str, affected: Json) -> bool:
    """Whether a version is in the list or in one of the ranges of an advisory."""
    if version in affected.get("versions", ()):
        return True
    ranges = (each for each in affected.get("ranges", ()) if each.get("type") == "ECOSYSTEM")
    return any(_is_within(Version(version), each["events"]) for each in ranges)


def _is_within(version: Version, events: Iterable[dict[str, str]]) -> bool:
    inside = False
    for event in sorted(events, key=lambda each: _version(next(iter(each.values())))):
        (kind, text) = next(iter(event.items()))
        bound = _version(text)
        if kind == "introduced" and version >= bound:
            inside = True
        elif (kind == "fixed" and version >= bound) or (
            kind == "last_affected" and version > bound
        ):
            inside = False
    return inside


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; the exit code of ``audit`` is 1 if something is vulnerable."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    licences = commands.add_parser("licences", help="add licences to a bill of materials")
    audit = commands.add_parser("audit", help="look its components up in a copy of OSV")
    for command in (licences, audit):
        command.add_argument("bill", type=Path)
    licences.add_argument("list", type=Path, help="file for the list of licences")
    audit.add_argument("database", type=Path, help="PyPI/all.zip of OSV, or a directory of entries")
    audit.add_argument("--ignore", action="append", default=[], help="an advisory that is no risk")
    audit.add_argument("--max-age", type=int, default=30, help="days since the newest entry (30)")
    chosen = parser.parse_args(arguments)
    bill: Json = json.loads(chosen.bill.read_text(encoding="utf-8"))
    if chosen.command == "licences":
        bill = with_licences(bill, metadata.version("waldur-site-agent"))
        chosen.bill.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
        chosen.list.write_text(licence_list(bill), encoding="utf-8")
        return 0
    try:
        entries = list(advisories(chosen.database))
    except (OSError, zipfile.BadZipFile) as error:
        parser.error(f"{chosen.database}: {error}")
    if not entries:
        parser.error(f"{chosen.database} has no advisories")
    age = days_since_the_newest(entries, datetime.now(UTC))
    if age is not None and age > chosen.max_age:
        parser.error(f"{chosen.database} is {age} days old; get a new copy, or raise --max-age")
    found = [each for each in vulnerable(bill, entries) if each[1] not in chosen.ignore]
    for component, advisory, summary in found:
        print(f"{component}: {advisory} {summary}")
    print(f"{len(bill['components'])} components, {len(entries)} advisories, {len(found)} found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
