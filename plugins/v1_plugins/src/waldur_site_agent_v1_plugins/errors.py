"""Sorts what plugins of version 1 raise into the two families of errors.

Version 1 had one error for everything, and an order that met it was erred. Here an order errs only
for what will certainly not work: a name that is taken, or an answer of the server that refuses the
request itself. Everything else is tried again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from waldur_site_agent.backends import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.errors import DefectError
from waldur_site_agent_v1_plugins.interface.backend import exceptions as v1

_REFUSALS = frozenset({400, 409, 413, 422})
"""HTTP statuses that mean: this very request will not work."""

_NOT_FOUND = 404
_CONFLICT = 409
_NOT_FOUND_NAMES = frozenset(
    {"NotFound", "NotFoundError", "NotFoundException", "ResourceNotFoundError"}
)
"""What client libraries call their error for an answer of 404, where it has no status."""

_STATUS_IN_TEXT = re.compile(r"(?i)\b(?:http|status|code|error)(?:[\s:=(-]|code|status)*(\d{3})\b")
_DEFECTS = (TypeError, AttributeError, KeyError, IndexError, AssertionError, NotImplementedError)


def sorted_error(
    what: str, error: Exception, *, secrets: Iterable[str] = (), failed_for_good: bool = False
) -> SiteAgentError:
    """The error of the agent for what a plugin raised.

    Args:
        what: the object, and what could not be done.
        error: what the plugin raised.
        secrets: values of settings that must not be repeated.
        failed_for_good: whether a plain ``BackendError`` means that it failed for good.
    """
    if isinstance(error, SiteAgentError):
        return error
    text = f"{what}: {masked(str(error) or type(error).__name__, secrets)}"
    found: SiteAgentError
    match error:
        case v1.DuplicateResourceError():
            found = PermanentError(text, remedy="choose another name")
        case v1.BackendNotReadyError() | v1.UserNotProvisionedError() | v1.ConfigurationError():
            found = TemporaryError(text)
        case _ if any(isinstance(each, OSError) for each in _chain(error)):
            found = TemporaryError(text)
        case _ if statuses := [*_statuses(error)]:
            refused = all(status in _REFUSALS for status in statuses)
            found = PermanentError(text) if refused else TemporaryError(text)
        case v1.BackendError():
            found = PermanentError(text) if failed_for_good else TemporaryError(text)
        case _ if isinstance(error, _DEFECTS):
            found = DefectError(f"{text} ({type(error).__name__} in the plugin)")
        case _:
            found = TemporaryError(text)
    found.__cause__ = error
    return found


def says_not_found(error: Exception) -> bool:
    """Whether a service answered that the very thing that was asked for does not exist.

    Only to be concluded from between two successful pings: a wrong address answers 404, too.
    """
    statuses = [*_statuses(error)]
    if statuses:
        return all(status == _NOT_FOUND for status in statuses)
    return type(error).__name__ in _NOT_FOUND_NAMES


def says_conflict(error: Exception) -> bool:
    """Whether a service answered that a resource of this name exists already."""
    if isinstance(error, v1.DuplicateResourceError):
        return True
    return _CONFLICT in _statuses(error)


def masked(text: str, secrets: Iterable[str]) -> str:
    """A text without the values of secret settings."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _statuses(error: BaseException) -> Iterator[int]:
    """The HTTP statuses that an error and its causes mention."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        for holder, name in (
            (response, "status_code"),
            (each, "status_code"),
            (each, "status"),
            (each, "response_code"),
        ):
            status = getattr(holder, name, None)
            if isinstance(status, int) and not isinstance(status, bool):
                yield status
        for found in _STATUS_IN_TEXT.finditer(str(each)):
            yield int(found[1])
