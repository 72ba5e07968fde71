"""Taking over what a backend had before Waldur knew of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


class ImportState:
    """The states of a request for importable resources."""

    SENT = "Sent"
    PROCESSING = "Processing"
    DONE = "Done"
    ERRED = "Erred"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResourceRequest:
    """Somebody asks to be told what an offering's backend has and no resource claims."""

    uuid: UUID
    state: str = ""
    offering_uuid: UUID | None = None
    created: datetime | None = None
    error_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResource:
    """Something in the backend that may become a resource of a project."""

    uuid: UUID
    name: str = ""
    backend_id: str = ""
    """Its name in the backend (Slurm: the account)."""
    project_uuid: UUID | None = None
    offering_uuid: UUID | None = None
    backend_metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def account(self) -> str:
        """``backend_id`` as names are compared everywhere: backends keep lower case."""
        return self.backend_id.strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project, found by the slug that is part of its account's name."""

    uuid: UUID
    name: str = ""
    slug: str = ""
    customer_uuid: UUID | None = None
    customer_name: str = ""
    customer_slug: str = ""
