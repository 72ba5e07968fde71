"""How a conversation with Waldur fails, in the agent's two families of failure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence

import httpx

from waldur_site_agent.model.errors import PermanentError, TemporaryError


class LostAnswerError(TemporaryError):
    """A write was sent and its answer never came (timeout, cut connection, HTTP 502 or 504).

    It may have taken effect: read the object before writing again.
    """


class TokenRefusedError(TemporaryError):
    """HTTP 401: the token is wrong, was revoked or has expired.

    Temporary, because it says nothing about the object that was being worked on.
    """


class AccessDeniedError(PermanentError):
    """HTTP 403: the token is good, but its user lacks the right for this operation."""


class NotFoundError(PermanentError):
    """HTTP 404: there is no such object, or the token's user may not see it."""


class ConflictError(PermanentError):
    """HTTP 409: the object's state does not allow the operation; the text has Waldur's words."""


class TransitionRefusedError(PermanentError):
    """HTTP 400: an offering user cannot go to that state from the one it is in; read it."""


class OrderingRefusedError(PermanentError):
    """HTTP 400 about ``o``: the server does not sort the list in this way."""


class PastMonthRefusedError(PermanentError):
    """HTTP 400 about the date: only staff may report usage of a month that has passed."""


class AbsentOperationError(PermanentError):
    """The server does not have the operation (HTTP 404 that is not an API answer, or 405)."""


class BodyRefusedError(PermanentError):
    """HTTP 415: the server reads no body of this kind here."""


_LONGEST = 300
_UNNAMED = frozenset({"non_field_errors", "detail", "__all__", "status"})
_MARKUP_WITHOUT_WORDS = re.compile(
    r"<(script|style)\b.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)", re.S | re.I
)
_TAG = re.compile(r"<[^>]*>?")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.S | re.I)


def is_markup(response: httpx.Response) -> bool:
    """Whether a body is a page for people (HTML, XML) instead of an answer of the API."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in {"text/html", "application/xhtml+xml"} or response.content.lstrip()[:1] == b"<"


def is_api_answer(response: httpx.Response) -> bool:
    """Whether a body is JSON, as all of the API's own words are."""
    try:
        json.loads(response.content)
    except (ValueError, RecursionError):
        return False
    return True


def complains_of(response: httpx.Response, field: str) -> bool:
    """Whether an error body names this field of the request as the mistake."""
    try:
        body: object = json.loads(response.content)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, Mapping) and field in body


def server_words(response: httpx.Response) -> str:
    """What the server said, shortened, on one line; empty if it said nothing."""
    try:
        words = "; ".join(flatten(json.loads(response.content)))
    except (ValueError, RecursionError):
        words = _words_of_page(response.text) if is_markup(response) else response.text
    return shorten(words)


def flatten(body: object, place: str = "") -> Iterator[str]:
    """Every message in a decoded error body, with the name of the field it speaks of."""
    if isinstance(body, Mapping):
        for key, value in body.items():
            name = str(key)
            yield from flatten(value, place if name in _UNNAMED else _below(place, name))
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


def shorten(words: str, longest: int = _LONGEST) -> str:
    """The words on one line, without control characters, cut at ``longest`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _words_of_page(page: str) -> str:
    title = _TITLE.search(page)
    words = title.group(1) if title else _MARKUP_WITHOUT_WORDS.sub(" ", page)
    return html.unescape(_TAG.sub(" ", words))
