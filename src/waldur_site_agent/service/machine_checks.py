"""Looks at the machine that the agent runs on: files, who may read them, clock and locks."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from waldur_site_agent.backends import Check, Verdict
from waldur_site_agent.backends.locking import OWN_DIRECTORY, default_lock_file
from waldur_site_agent.service.sessions import billing_zone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta, tzinfo

    from waldur_site_agent.config import Configuration, Source

_TOLERABLE_SECONDS = 60.0


def diagnose_machine(configuration: Configuration, source: Source) -> Iterator[Check]:
    """What concerns all offerings alike; never raises."""
    yield from _secrets(configuration, source)
    yield _time_zone(configuration)
    yield _locks()
    for key, path in (
        ("journal", configuration.journal),
        ("health_file", configuration.health_file),
    ):
        if path:
            yield _writable(key, Path(path))


def clock_check(ahead_seconds: float | None) -> Check:
    """Compare this machine's clock with the server's."""
    if ahead_seconds is None:
        detail = "the server does not say what time it is"
        return Check(name="clock", verdict=Verdict.WARNING, detail=detail)
    if abs(ahead_seconds) <= _TOLERABLE_SECONDS:
        return Check(name="clock", verdict=Verdict.OK, detail="agrees with the server's")
    way = "behind" if ahead_seconds > 0 else "ahead of"
    return Check(
        name="clock",
        verdict=Verdict.WARNING,
        detail=f"is {abs(ahead_seconds):.0f} s {way} the server's: months end, and roles of people "
        "expire, at the wrong moment",
        remedy="let chrony or systemd-timesyncd set this machine's clock",
    )


def _secrets(configuration: Configuration, source: Source) -> Iterator[Check]:
    """The files that hold tokens, each once."""
    paths = {
        source.path.parent / os.path.expandvars(offering.waldur_api_token_file)
        for offering in configuration.offerings
        if offering.waldur_api_token_file
    }
    try:
        text = source.path.read_text(encoding="utf-8")
    except OSError:  # it was read a moment ago, so this is about to be noticed anyway
        text = ""
    holds_a_token = any(o.token and o.token in text for o in configuration.offerings)
    yield _readable_for_few("configuration file", source.path, secret=holds_a_token)
    for path in sorted(paths):
        yield _readable_for_few("token file", path, secret=True)


def _readable_for_few(name: str, path: Path, *, secret: bool) -> Check:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return Check(name=name, verdict=Verdict.FAILED, detail=f"{path}: {error.strerror}")
    wide = mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP)
    allowed = wide & (stat.S_IWOTH | stat.S_IWGRP) == 0 and (not secret or not wide)
    holds = "holds a token and " if secret else ""
    return Check(
        name=name,
        verdict=Verdict.OK if allowed else Verdict.WARNING,
        detail=f"{path} has mode {mode:04o}"
        + ("" if allowed else f": it {holds}can be read or changed by others than its owner"),
        remedy="" if allowed else f"chmod {'640' if secret else '644'} {path}",
    )


def _time_zone(configuration: Configuration) -> Check:
    zone: tzinfo = billing_zone(configuration)
    if configuration.timezone or _is_utc(zone):
        return Check(
            name="time zone", verdict=Verdict.OK, detail=f"billing months are cut in {zone}"
        )
    return Check(
        name="time zone",
        verdict=Verdict.WARNING,
        detail=f"billing months are cut in {zone}, the machine's, because timezone is not set",
        remedy="set timezone, so that another machine counts alike; UTC is how Waldur counts",
    )


def _is_utc(zone: tzinfo) -> bool:
    no_time: timedelta | None = zone.utcoffset(None)
    return str(zone) in ("UTC", "Etc/UTC") or (no_time is not None and not no_time)


def _locks() -> Check:
    directory = default_lock_file("waldur-site-agent.lock").parent
    if directory == OWN_DIRECTORY:
        return Check(name="lock directory", verdict=Verdict.OK, detail=str(directory))
    return Check(
        name="lock directory",
        verdict=Verdict.WARNING,
        detail=f"{directory}, because this user cannot use {OWN_DIRECTORY}: agents of other users "
        "may not see these locks",
        remedy="run this as the user of the service, which makes the directory for itself "
        "(RuntimeDirectory=waldur-site-agent)",
    )


def _writable(key: str, path: Path) -> Check:
    place = path if path.exists() else path.parent
    if os.access(place, os.W_OK):
        return Check(name=key, verdict=Verdict.OK, detail=str(path))
    return Check(
        name=key,
        verdict=Verdict.FAILED,
        detail=f"{path} cannot be written by this user",
        remedy=f"make {path.parent} and let the agent's user write there",
    )
