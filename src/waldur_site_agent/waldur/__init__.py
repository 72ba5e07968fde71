"""The gateway to Waldur: the only code that knows its REST API."""

from waldur_site_agent.waldur.address import ApiAddress
from waldur_site_agent.waldur.client import Waldur
from waldur_site_agent.waldur.concurrency import Attempt, concurrently
from waldur_site_agent.waldur.errors import (
    AbsentOperationError,
    AccessDeniedError,
    BodyRefusedError,
    ConflictError,
    LostAnswerError,
    NotFoundError,
    PastMonthRefusedError,
    TokenRefusedError,
    TransitionRefusedError,
)
from waldur_site_agent.waldur.http import RetryPolicy, Timeouts
from waldur_site_agent.waldur.listing import Listing, UnreadableRow
from waldur_site_agent.waldur.tokens import AccessTokens, Client

__all__ = [
    "AbsentOperationError",
    "AccessDeniedError",
    "AccessTokens",
    "ApiAddress",
    "Attempt",
    "BodyRefusedError",
    "Client",
    "ConflictError",
    "Listing",
    "LostAnswerError",
    "NotFoundError",
    "PastMonthRefusedError",
    "RetryPolicy",
    "Timeouts",
    "TokenRefusedError",
    "TransitionRefusedError",
    "UnreadableRow",
    "Waldur",
    "concurrently",
]
