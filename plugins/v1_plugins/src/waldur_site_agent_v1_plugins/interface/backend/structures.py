"""Stands for ``waldur_site_agent.backend.structures``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ClientResource:
    """What a client knows of a resource: ``name`` is its id, ``organization`` its parent's."""

    name: str = ""
    description: str = ""
    organization: str = ""
    backend_id: str = ""


@dataclass
class Association:
    """That a user is a member of a resource."""

    account: str = ""
    user: str = ""
    value: int = 0


@dataclass
class BackendResourceInfo:
    """What a backend knows of a resource; ``limits`` in Waldur's units."""

    backend_id: str = ""
    parent_id: str = ""
    effective_id: str = ""
    users: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    pending_order_id: str = ""
    backend_metadata: dict[str, Any] = field(default_factory=dict)
    endpoints: list[dict[str, str]] = field(default_factory=list)
