"""Waldur's API: who am I, and what is this server."""

from __future__ import annotations

from datetime import timedelta

from waldur_site_agent_sandbox import rendering
from waldur_site_agent_sandbox.http import Answer, Call, Operation, denied, json_answer
from waldur_site_agent_sandbox.queries import choose_fields


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
