"""Errors of Waldur's REST API, temporary or permanent, and the text of error responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import httpx

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.waldur.body import body_text, is_markup, load_json, page_text, shorten

_GENERAL_KEYS = frozenset({"non_field_errors", "detail", "__all__", "status"})


class LostAnswerError(TemporaryError):
    """A write was sent and no answer came (timeout, closed connection, HTTP 502 or 504).

    It may have taken effect: read the object before writing again.
    """


class TokenRefusedError(TemporaryError):
    """HTTP 401: the token is wrong, was revoked or has expired.

    Temporary, because it says nothing about the object of the request.
    """


class AccessDeniedError(PermanentError):
    """HTTP 403: the token is valid, but its user lacks the permission for this operation."""


class NotFoundError(PermanentError):
    """HTTP 404: the object does not exist, or the token's user may not see it."""


class ConflictError(PermanentError):
    """HTTP 409: the object's state does not allow the operation; the text quotes Waldur."""


class TransitionRefusedError(PermanentError):
    """HTTP 400: the offering user's current state does not allow this change; read it again."""


class OrderingRefusedError(PermanentError):
    """HTTP 400 about ``o``: the server cannot sort the list in this order."""


class PastMonthRefusedError(PermanentError):
    """HTTP 400 about the date: only staff may report usage of a closed month."""


class AbsentOperationError(PermanentError):
    """The server does not have the operation (HTTP 404 that is not an API answer, or 405)."""


class BodyRefusedError(PermanentError):
    """HTTP 415: the server does not accept a JSON body for this operation."""


def is_json(response: httpx.Response) -> bool:
    """Whether a body is JSON, as all responses of the API are."""
    try:
        load_json(response.content)
    except ValueError:
        return False
    return True


def error_names(response: httpx.Response, field: str) -> bool:
    """Whether an error body names this field of the request."""
    try:
        body: object = load_json(response.content)
    except ValueError:
        return False
    return isinstance(body, Mapping) and field in body


def error_text(response: httpx.Response) -> str:
    """The message in an error response, shortened, on one line; empty if there is none."""
    try:
        text = "; ".join(flatten(load_json(response.content)))
    except ValueError:
        text = page_text(response.content) if is_markup(response) else body_text(response)
    return shorten(text)


def flatten(body: object, place: str = "") -> Iterator[str]:
    """Every message in a decoded error body, with the name of its field."""
    if isinstance(body, Mapping):
        for key, value in body.items():
            name = str(key)
            yield from flatten(value, place if name in _GENERAL_KEYS else _below(place, name))
    elif isinstance(body, Sequence) and not isinstance(body, str):
        plain = [str(item) for item in body if isinstance(item, str | int | float)]
        if plain:
            yield from flatten(" ".join(plain), place)
        for position, item in enumerate(body):
            if isinstance(item, Mapping | list | tuple):
                yield from flatten(item, _below(place, str(position + 1)))
    elif body is not None and str(body).strip():
        text = str(body).strip()
        yield f"{place}: {text}" if place else text


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
