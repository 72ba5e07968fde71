"""What Waldur is told about a resource after the backend was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.remembering import metadata_of
from waldur_site_agent.planning.writes import metadata_write, ok_write, sync_write

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from waldur_site_agent.backends import Access, BackendResource
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.writes import Write

SYNC_MARK_AGE = timedelta(minutes=50)
"""Waldur sends reminders for resources that were not synchronized for an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The differences between what Waldur shows of a resource and how it stands."""

    resource: Resource
    metadata: Mapping[str, object] | None = None
    set_ok: bool = False
    refresh_sync: bool = False

    def __bool__(self) -> bool:
        return self.metadata is not None or self.set_ok or self.refresh_sync


def feedback_writes(feedback: Feedback) -> tuple[Write, ...]:
    """What is written in Waldur for it, in this order."""
    resource = feedback.resource
    writes = []
    if feedback.set_ok:
        writes.append(ok_write(resource, "its account works"))
    if feedback.metadata is not None:
        writes.append(metadata_write(resource, feedback.metadata, "found in the backend"))
    if feedback.refresh_sync:
        writes.append(sync_write(resource))
    return tuple(writes)


def feedback_on(
    resource: Resource,
    found: BackendResource,
    now: datetime,
    *,
    works: bool,
    wanted: Access | None = None,
    limited: Collection[str] = (),
) -> Feedback:
    """Compare what Waldur shows with how the resource stands.

    Args:
        resource: the resource as Waldur shows it.
        found: its account.
        now: the time.
        works: whether everything planned for the account succeeded.
        wanted: how far the account should be usable.
        limited: the members whose limits the agent has set.
    """
    metadata = metadata_of(resource.backend_metadata, found, wanted, limited)
    return Feedback(
        resource=resource,
        metadata=metadata if metadata != dict(resource.backend_metadata) else None,
        set_ok=works and resource.state == ResourceState.ERRED,
        refresh_sync=works
        and (resource.last_sync is None or now - resource.last_sync > SYNC_MARK_AGE),
    )
