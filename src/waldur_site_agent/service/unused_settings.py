"""Settings that have no effect where they stand: said once, not left to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.config import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent.config import Configuration, Offering


def warn_of_unused_settings(configuration: Configuration) -> None:
    """Log which settings of an offering need another one that is not there."""
    log = structlog.get_logger()
    for offering in configuration.offerings:
        for key, needed in _unused(offering):
            log.warning(
                "a setting has no effect",
                offering=offering.name,
                setting=key,
                remedy=f"set {needed}",
            )


def _unused(offering: Offering) -> Iterator[tuple[str, str]]:
    membership = Job.MEMBERSHIP.value
    if offering.resource_import_enabled and not offering.backend_for(Job.MEMBERSHIP):
        yield "resource_import_enabled", membership
    if offering.limits == "waldur" and not offering.backend_for(Job.MEMBERSHIP):
        yield "limits", membership
    if offering.by_events and not any(
        offering.backend_for(j) for j in (Job.ORDERS, Job.MEMBERSHIP)
    ):
        key = "mqtt_enabled" if offering.mqtt_enabled else "stomp_enabled"
        yield key, f"{Job.ORDERS.value} or {membership}"
