"""Calls that Waldur may not take: the server is too old for them, or the token has no right.

The two are not the same. An old server lacks a call for everybody: that is remembered for all
work at that server, logged once, and nobody's failure. A missing right is the site's to give: it
is a warning. Neither lasts for ever here, for servers are upgraded and rights are given: after a
day the call is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur import AbsentOperationError, AccessDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from waldur_site_agent.cycles.site import Site

UNAVAILABLE = (AbsentOperationError, AccessDeniedError)
"""What a call raises that this server, or this token, does not have."""

Answer = TypeVar("Answer")

_A_DAY = 86400
_WORKS = -1


def ask_optional(
    site: Site, call: str, ask: Callable[[], Answer], effect: str = "it is left out"
) -> Answer:
    """Make a call that old servers do not have.

    Args:
        site: the offering at work.
        call: the call's name in Waldur's API.
        ask: makes it.
        effect: what the agent does without it, for the log.

    Raises:
        AbsentOperationError: the server does not have the call; it is not asked for a day.
        TemporaryError: Waldur could not be asked, or says that it does not have a call that it
            had before: something between here and there said that.
        PermanentError: Waldur refused.
    """
    if is_absent(site, call):
        raise AbsentOperationError(f"this Waldur does not have the call {call}")
    try:
        answer = ask()
    except AbsentOperationError as error:
        if site.server_calls.get(call) == _WORKS:
            raise TemporaryError(f"{error}; it had the call before") from error
        _remember_absent(site, call, error, effect)
        raise
    site.server_calls[call] = _WORKS
    return answer


def tell_optional(site: Site, call: str, tell: Callable[[], None], resource: str = "") -> bool:
    """Tell Waldur what it may not take; whether it took it.

    What the token may not do is a warning once a day, and not tried in between.

    Raises:
        SiteAgentError: Waldur could not be asked, or refused for another reason.
    """
    if is_unavailable(site, call):
        return False
    try:
        ask_optional(site, call, tell)
    except AbsentOperationError:
        return False
    except AccessDeniedError as error:
        remember_denied(site, call, error, resource)
        return False
    return True


def is_absent(site: Site, call: str) -> bool:
    """Whether the server is known not to have a call."""
    return site.server_calls.get(call, 0) > site.now().timestamp() - _A_DAY


def is_unavailable(site: Site, call: str) -> bool:
    """Whether a call is known to be absent or denied."""
    denied = site.memory.get(_denied(call), 0) > site.now().timestamp() - _A_DAY
    return denied or is_absent(site, call)


def remember_denied(site: Site, call: str, error: AccessDeniedError, resource: str = "") -> None:
    """Warn that the token may not make a call, and leave it alone for a day."""
    now = int(site.now().timestamp())
    if not is_unavailable(site, call):
        site.memory[_denied(call)] = now
        log = site.log.bind(resource=resource) if resource else site.log
        log.warning("the token may not make a call; it is left out", call=call, reason=str(error))


def _remember_absent(site: Site, call: str, error: AbsentOperationError, effect: str) -> None:
    if not is_absent(site, call):
        site.server_calls[call] = int(site.now().timestamp())
        site.log.info(
            "this Waldur does not have a call", call=call, effect=effect, reason=str(error)
        )


def _denied(call: str) -> str:
    return f"{call} was denied"
