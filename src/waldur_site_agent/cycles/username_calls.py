"""Carries out the calls that a username backend's answer asks for, for one person."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.username_report import UsernameChange, UsernameResult
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.people import OfferingUserState as State
from waldur_site_agent.planning.usernames import (
    ActionRequired,
    Call,
    Named,
    Refused,
    ToBeNamed,
    Unknown,
    Unnamed,
    plan_calls,
)
from waldur_site_agent.planning.writes import user_write
from waldur_site_agent.waldur import TransitionRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.model.people import OfferingUser
    from waldur_site_agent.planning.usernames import Answer
    from waldur_site_agent.planning.writes import Write
    from waldur_site_agent.waldur import Waldur

_MAY_BE_SO_ALREADY = (Call.SET_OK, Call.SET_VALIDATION_COMPLETE, Call.BEGIN_CREATING)
"""Refused by Waldur when somebody, or an earlier call whose answer was lost, did it before."""


def carry_out(
    waldur: Waldur,
    log: FilteringBoundLogger,
    user: OfferingUser,
    answer: Answer,
    record: Callable[[Write, SiteAgentError | None], None],
) -> UsernameChange | None:
    """Make Waldur show the answer; ``None`` when there was nothing to do. Never raises."""
    log = log.bind(user=user.user_username, offering_user=str(user.uuid))
    current = user
    change: UsernameChange | None
    try:
        for call in plan_calls(user, answer):
            current = _send(waldur, call, current, answer)
    except SiteAgentError as error:
        change = _left(user, current, answer, str(error))
    except Exception as error:  # a defect ends one person's turn, not the cycle
        log.exception("username not set because of a defect")
        change = _left(user, current, answer, f"a defect: {type(error).__name__}: {error}")
    else:
        change = _concluded(user, current, answer, UsernameResult.DONE)
    if change is not None:
        _log(log, change)
        if change.write is not None:
            record(change.write, None)
    return change


def imagine(user: OfferingUser, answer: Answer) -> UsernameChange | None:
    """What :func:`carry_out` would come to if everything went well."""
    current = user
    for call in plan_calls(user, answer):
        current = _after(call, current, answer)
    return _concluded(user, current, answer, UsernameResult.PLANNED)


def _send(waldur: Waldur, call: Call, user: OfferingUser, answer: Answer) -> OfferingUser:
    """Send one call and return the user as it is then."""
    if call is Call.SET_OK and user.state == State.OK:
        return user
    try:
        match call, answer:
            case Call.SET_USERNAME, Named(username):
                shown = waldur.set_username(user.uuid, username)
                return replace(user, username=shown.username, state=shown.state)
            case Call.SET_PENDING_ACCOUNT_LINKING, ActionRequired(_, comment, url):
                waldur.set_pending_account_linking(user.uuid, comment, url)
            case Call.SET_PENDING_ADDITIONAL_VALIDATION, ActionRequired(_, comment, url):
                waldur.set_pending_additional_validation(user.uuid, comment, url)
            case Call.SET_VALIDATION_COMPLETE, _:
                waldur.set_validation_complete(user.uuid)
            case Call.BEGIN_CREATING, _:
                waldur.begin_creating(user.uuid)
            case Call.SET_ERROR_CREATING, _:
                waldur.set_error_creating(user.uuid)
            case _:
                waldur.set_ok(user.uuid)
    except TransitionRefusedError:
        if call not in _MAY_BE_SO_ALREADY:
            raise
    return _after(call, user, answer)


def _after(call: Call, user: OfferingUser, answer: Answer) -> OfferingUser:
    match call, answer:
        case Call.SET_USERNAME, Named(username):
            return replace(user, username=username)
        case (
            (Call.SET_PENDING_ACCOUNT_LINKING | Call.SET_PENDING_ADDITIONAL_VALIDATION),
            (ActionRequired(state, comment, url)),
        ):
            return replace(
                user,
                state=state,
                service_provider_comment=comment,
                service_provider_comment_url=url,
            )
        case Call.SET_VALIDATION_COMPLETE, _:
            return replace(
                user,
                state=State.OK,
                service_provider_comment="",
                service_provider_comment_url="",
            )
        case Call.BEGIN_CREATING, _:
            return replace(user, state=State.CREATING)
        case Call.SET_ERROR_CREATING, _:
            return replace(user, state=State.ERROR_CREATING)
        case _:
            return replace(user, state=State.OK)


def _concluded(
    before: OfferingUser, after: OfferingUser, answer: Answer, result: UsernameResult
) -> UsernameChange | None:
    reason = ""
    match answer:
        case Refused(reason):
            result = UsernameResult.REFUSED
        case Unknown(reason):
            result = UsernameResult.LEFT
        case ToBeNamed():
            reason = "the username backend makes one when this is no dry run"
        case ActionRequired(state, comment) if after.state != state:
            result = UsernameResult.LEFT
            reason = f"{comment} (not shown to the person: the account is {after.state} already)"
        case _ if before == after:
            return None
        case ActionRequired(comment=reason):
            pass
    return _change(before, after, answer, result, reason)


def _left(before: OfferingUser, after: OfferingUser, answer: Answer, reason: str) -> UsernameChange:
    return _change(before, after, answer, UsernameResult.LEFT, reason)


def _change(
    before: OfferingUser, after: OfferingUser, answer: Answer, result: UsernameResult, reason: str
) -> UsernameChange:
    write = user_write(before, after)
    return UsernameChange(
        user=after,
        what=_what(answer),
        result=result,
        reason=reason,
        write=write if write.changes else None,
    )


def _what(answer: Answer) -> str:
    match answer:
        case Named(username):
            return f"username {username}"
        case ActionRequired(state):
            return state
        case ToBeNamed():
            return "a username"
        case Refused() | Unknown() | Unnamed():
            return "no username"


def _log(log: FilteringBoundLogger, change: UsernameChange) -> None:
    """What was done; who is refused a name, or waits, does so in every cycle: see the report."""
    if change.result is UsernameResult.DONE:
        changes = [str(each) for each in change.write.changes] if change.write else []
        log.info("offering user changed", what=change.what, changes=changes, reason=change.reason)
