"""What a backend has that Waldur does not know yet, and who asked for it, as it stores both."""

from dataclasses import dataclass, field
from datetime import datetime

from waldur_site_agent.sandbox.records import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResourceRequest:
    """Somebody asks what an offering's backend has that could be imported."""

    uuid: str
    created: datetime
    modified: datetime
    offering: str
    state: str = "Sent"
    """``Sent``, ``Processing``, ``Done`` or ``Erred``."""
    started: datetime | None = None
    finished: datetime | None = None
    error_message: str = ""
    error_traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResource:
    """Something of a backend that could become a resource."""

    uuid: str
    created: datetime
    modified: datetime
    name: str
    project: str
    offering: str
    backend_id: str = ""
    backend_metadata: JsonObject = field(default_factory=dict)
