"""Waldur's API: who am I, and what is this server."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from waldur_site_agent_sandbox import rendering
from waldur_site_agent_sandbox.http import Call, JsonResponse, Operation, denied
from waldur_site_agent_sandbox.queries import choose_fields


def _me(call: Call) -> Response:
    lifetime = call.user.token_lifetime
    expires = None if lifetime is None else call.tx.now + timedelta(seconds=lifetime)
    whole = rendering.user(call.tx, call.user, call.api, expires)
    return JsonResponse(choose_fields(call, whole))


def _version(call: Call) -> Response:
    if not call.user.is_staff:
        raise denied()
    version = call.tx.generation.version
    return JsonResponse({"version": version, "latest_version": version})


OPERATIONS = (
    Operation("users_me_retrieve", "GET", "users/me/", _me),
    Operation("version_retrieve", "GET", "version/", _version),
)
