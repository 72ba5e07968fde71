"""Settings that are understood but have no effect in this version: said once, not left to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from waldur_site_agent.config import Configuration, Offering, Source
    from waldur_site_agent.config.source import Value

_OF_AN_OFFERING = ("resource_import_enabled",)


def warn_of_unused_settings(configuration: Configuration, source: Source) -> None:
    """Log which settings of the file have no effect, and which offerings nothing serves."""
    log = structlog.get_logger()
    unused: list[str] = []
    for offering, entry in zip(configuration.offerings, _entries(source), strict=True):
        keys = _unused(offering, entry, _OF_AN_OFFERING)
        unused += [f'{key} of "{offering.name}"' for key in keys]
        if offering.by_events:
            log.warning(
                "no mode of this version serves the orders and members of the offering",
                offering=offering.name,
                reason="stomp_enabled and mqtt_enabled hand it to event_process, still to come",
                remedy="set both to false, and order_process and membership_sync serve it",
            )
    if unused:
        log.warning("settings that this version does not use yet", settings=unused)


def _unused(
    section: Configuration | Offering, written: Value, keys: Iterable[str]
) -> Iterator[str]:
    """Those of the keys that stand in the file and are not empty or off."""
    names = written if isinstance(written, dict) else {}
    return (key for key in keys if key in names and getattr(section, key))


def _entries(source: Source) -> list[Value]:
    entries = source.content["offerings"]
    return entries if isinstance(entries, list) else []
