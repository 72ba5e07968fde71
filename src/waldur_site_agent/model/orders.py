"""Orders and resources as Waldur tells of them. Times are aware datetimes as the server sent them.

Field names are the API's own, so that an answer can be compared with the documentation. States
and types are plain text: a server newer than this agent may use values that are not listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


class OrderState:
    """The order states that the agent acts on; there are others."""

    PENDING_PROVIDER = "pending-provider"
    PENDING_START_DATE = "pending-start-date"
    EXECUTING = "executing"
    DONE = "done"
    ERRED = "erred"


class OrderType:
    """The kinds of order that the agent carries out; newer servers know others."""

    CREATE = "Create"
    UPDATE = "Update"
    TERMINATE = "Terminate"


class ResourceState:
    """The states of a marketplace resource."""

    CREATING = "Creating"
    OK = "OK"
    ERRED = "Erred"
    UPDATING = "Updating"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"

    ALIVE = (CREATING, OK, ERRED, UPDATING, TERMINATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request of a customer. ``limits`` are in Waldur's measured units."""

    uuid: UUID
    type: str
    state: str
    created: datetime | None = None
    modified: datetime | None = None
    marketplace_resource_uuid: UUID | None = None
    """The resource ordered; very old servers fill it some time after the order appears."""
    resource_name: str = ""
    project_uuid: UUID | None = None
    project_name: str = ""
    project_slug: str = ""
    customer_uuid: UUID | None = None
    customer_name: str = ""
    customer_slug: str = ""
    limits: Mapping[str, Decimal | None] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    start_date: date | None = None
    backend_id: str = ""
    error_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a project bought. ``limits`` are in Waldur's measured units."""

    uuid: UUID
    name: str = ""
    slug: str = ""
    state: str = ""
    backend_id: str = ""
    """The resource's name in the backend (Slurm: the account); empty until it was made."""
    offering_uuid: UUID | None = None
    project_uuid: UUID | None = None
    project_name: str = ""
    project_slug: str = ""
    customer_uuid: UUID | None = None
    customer_name: str = ""
    customer_slug: str = ""
    limits: Mapping[str, Decimal | None] = field(default_factory=dict)
    backend_metadata: Mapping[str, Any] = field(default_factory=dict)
    paused: bool = False
    downscaled: bool = False
    restrict_member_access: bool = False
    created: datetime | None = None
    modified: datetime | None = None
    """The last change of any kind; not before its end, if it is terminated."""
    last_sync: datetime | None = None
    error_message: str = ""
    order_in_progress: Mapping[str, Any] | None = None
    """The order that is being carried out on the resource, whole, when it was asked for."""

    @property
    def account(self) -> str:
        """``backend_id`` as names are compared everywhere: backends keep lower case."""
        return self.backend_id.strip().lower()
