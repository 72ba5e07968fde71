"""How a conversation with Waldur fails, in the agent's two families of failure."""

from __future__ import annotations

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
