"""Usage of components by resources and by single users."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.usage import (
    BillingMonth,
    ComponentUsage,
    ComponentUserUsage,
    UserUsage,
)
from waldur_site_agent.waldur.errors import PastMonthRefusedError
from waldur_site_agent.waldur.http import Call, Connection
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import Operation, amount_text, uuid_text

_PATH = "marketplace-component-usages/"

COMPONENT_USAGES = Operation(
    id="marketplace_component_usages_list",
    purpose="list the usage of offering {uuid}",
    path=_PATH,
    answer=ComponentUsage,
    filters=("offering_uuid", "billing_period"),
    paged=True,
    # Every order on offer ties for many rows: at first, every usage is zero.
    orders=(None, "usage", "-usage"),
    chooses_fields=True,
    extra_fields=("offering_uuid",),
)
COMPONENT_USER_USAGES = Operation(
    id="marketplace_component_user_usages_list",
    purpose="list the usage of single users of offering {uuid}",
    path="marketplace-component-user-usages/",
    answer=ComponentUserUsage,
    filters=("offering_uuid", "component_usage__billing_period"),
    paged=True,
    orders=(None, "username", "-username"),
    chooses_fields=True,
    extra_fields=("offering_uuid",),
)
SET_USAGE: Operation[None] = Operation(
    id="marketplace_component_usages_set_usage",
    purpose="report the usage of resource {uuid}",
    method="POST",
    path=f"{_PATH}set_usage/",
    body=("resource", "usages", "date"),
    idempotent=True,
)
USAGE_DATES: Operation[None] = Operation(  # sent without ``usages``, so no server accepts it
    id="marketplace_component_usages_set_usage",
    purpose="check whether usage reports may carry a date",
    method="POST",
    path=f"{_PATH}set_usage/",
    body=("usages", "date"),
    idempotent=True,
)
SET_USER_USAGE: Operation[None] = Operation(
    id="marketplace_component_usages_set_user_usage",
    purpose="report one user's share of component usage {uuid}",
    method="POST",
    path=f"{_PATH}{{uuid}}/set_user_usage/",
    body=("username", "usage", "user"),
    idempotent=True,
)
SET_USER_USAGES: Operation[None] = Operation(
    id="marketplace_component_usages_set_user_usages",
    purpose="report the users' shares of component usage {uuid}",
    method="POST",
    path=f"{_PATH}{{uuid}}/set_user_usages/",
    body=("usages",),
    idempotent=True,
)

_NO_DATE = "none"
"""A value that no server accepts as a date."""


class UsageApi(ApiClient):
    """Usage of components by resources and by single users. Amounts are in measured units.

    Every amount that is sent replaces the one that Waldur has for that month; nothing is added
    up, so everything may be sent again.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._usage_dates_accepted: bool | None = None
        self._usage_dates_lock = threading.Lock()

    def component_usages(
        self, offering_uuid: UUID | str, month: BillingMonth
    ) -> Listing[ComponentUsage]:
        """The usage that Waldur has for a month, for all resources of an offering.

        Waldur's months begin at midnight UTC and are named by their first day.
        """
        return self._list(
            COMPONENT_USAGES,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            billing_period=month.first_day.isoformat(),
        )

    def component_user_usages(
        self, offering_uuid: UUID | str, month: BillingMonth
    ) -> Listing[ComponentUserUsage]:
        """The usage of single users that Waldur has for a month, for a whole offering."""
        listing = self._list(
            COMPONENT_USER_USAGES,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            component_usage__billing_period=month.first_day.isoformat(),
        )
        return listing.with_items(
            row for row in listing.items if row.billing_period in (None, month.first_day)
        )

    def count_component_user_usages(self, offering_uuid: UUID | str, month: BillingMonth) -> int:
        """How many rows :meth:`component_user_usages` would return, for one small request.

        Raises:
            TemporaryError: Also when the server does not say.
        """
        return self._count(
            COMPONENT_USER_USAGES,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            component_usage__billing_period=month.first_day.isoformat(),
        )

    @property
    def usage_dates_accepted(self) -> bool | None:
        """What :meth:`accepts_usage_dates` found; ``None`` before its first call."""
        return self._usage_dates_accepted

    def accepts_usage_dates(self) -> bool:
        """Whether :meth:`set_usage` may be given a time; checked once.

        Servers before 7.9 ignore the date and would book a past month's usage under the current
        month. Only staff can read the version, so the operation itself is probed: every server
        refuses a report without amounts and with an invalid date, and stores nothing; a server
        that reads dates complains about the date.

        Raises:
            TemporaryError: Waldur could not be reached.
            AccessDeniedError: The token may not report usage.
            PermanentError: Another refusal that says nothing about dates.
        """
        with self._usage_dates_lock:  # several threads may be about to report their first usage
            if self._usage_dates_accepted is None:
                self._usage_dates_accepted = self._rejects_invalid_date()
            return self._usage_dates_accepted

    def _rejects_invalid_date(self) -> bool:
        try:
            self._connection.send(Call.of(USAGE_DATES, body={"date": _NO_DATE}))
        except PastMonthRefusedError:
            return True
        except PermanentError as error:
            if type(error) is not PermanentError:
                raise  # 403, 404, 405 and the like say nothing about dates
            return False  # it only complains about the missing amounts
        return False

    def set_usage(
        self,
        resource_uuid: UUID | str,
        amounts: Mapping[str, Decimal],
        when: datetime | None = None,
    ) -> None:
        """Report a resource's usage in the current month, or in the UTC month of ``when``.

        Args:
            resource_uuid: The resource; it must be OK, Updating or Terminating.
            amounts: By component type, in measured units with at most two decimals. Send all
                components together: old servers show only those of the last report.
            when: An aware time in the month to report, if the server accepts one. Without it
                the report is sent exactly once: a repetition might be booked into the next
                month.

        Raises:
            PastMonthRefusedError: The month has closed, and the token is not a staff token.
            PermanentError: Also if the resource's state or a component does not allow it.
        """
        body: dict[str, object] = {
            "resource": uuid_text(resource_uuid),
            "usages": [
                {"type": component, "amount": amount_text(amount)}
                for component, amount in amounts.items()
            ],
        }
        if when is not None:
            if when.tzinfo is None:
                raise ValueError("the time of usage needs a time zone")
            body["date"] = when.astimezone(UTC).isoformat()
        self._write(SET_USAGE, resource_uuid, body, once=when is None)

    def set_user_usages(
        self, component_usage_uuid: UUID | str, user_usages: Sequence[UserUsage]
    ) -> None:
        """Report the shares of several users in one component usage, in one request.

        Users that are left out keep what Waldur has for them.

        Raises:
            AbsentOperationError: The server does not have it (before 8.0.5): report one by one.
        """
        usages = [self._user_usage(usage) for usage in user_usages]
        self._write(SET_USER_USAGES, component_usage_uuid, {"usages": usages})

    def set_user_usage(self, component_usage_uuid: UUID | str, user_usage: UserUsage) -> None:
        """Report one user's share of one component usage."""
        self._write(SET_USER_USAGE, component_usage_uuid, self._user_usage(user_usage))

    def _user_usage(self, usage: UserUsage) -> dict[str, object]:
        body: dict[str, object] = {"username": usage.username, "usage": amount_text(usage.usage)}
        if usage.offering_user_uuid is not None:
            body["user"] = self._connection.address.join(
                f"marketplace-offering-users/{usage.offering_user_uuid.hex}/"
            )
        return body
