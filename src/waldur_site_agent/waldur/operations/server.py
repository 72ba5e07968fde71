"""The server itself, and the agent's user."""

from __future__ import annotations

from dataclasses import dataclass

from waldur_site_agent.model.people import User
from waldur_site_agent.waldur.operation import reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The server's answer about itself."""

    version: str


ME = reading(
    "users_me_retrieve",
    "read whose token this is",
    "users/me/",
    User,
    query=("field",),  # also keeps the token itself out of the answer
)
VERSION = reading("version_retrieve", "read the server's version", "version/", Version)
