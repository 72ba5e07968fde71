"""Waldur's API: who am I, and what is this server."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox import rendering
from waldur_site_agent.sandbox.answers import denied, json_answer
from waldur_site_agent.sandbox.operations import Operation
from waldur_site_agent.sandbox.queries import choose_fields

if TYPE_CHECKING:
    from waldur_site_agent.sandbox.answers import Answer
    from waldur_site_agent.sandbox.operations import Call


def _me(call: Call) -> Answer:
    lifetime = call.user.token_lifetime
    expires = None if lifetime is None else call.tx.now + timedelta(seconds=lifetime)
    whole = rendering.user(call.tx, call.user, call.api, expires)
    return json_answer(choose_fields(call.query, whole))


def _version(call: Call) -> Answer:
    if not call.user.is_staff:
        raise denied()
    version = call.tx.generation.version
    return json_answer({"version": version, "latest_version": version})


OPERATIONS = (
    Operation(name="users_me_retrieve", method="GET", path="users/me/", run=_me),
    Operation(name="version_retrieve", method="GET", path="version/", run=_version),
)
