"""What the agent asks and tells about usage."""

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
from waldur_site_agent.waldur.codec import amount_text, uuid_text
from waldur_site_agent.waldur.errors import PastMonthRefusedError
from waldur_site_agent.waldur.http import Call, Connection
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import listing_pages, writing

_PATH = "marketplace-component-usages/"

COMPONENT_USAGES = listing_pages(
    "marketplace_component_usages_list",
    "list the usage of offering {uuid}",
    _PATH,
    ComponentUsage,
    filters=("offering_uuid", "billing_period"),
    ordered_by=None,  # all that is on offer is alike for many rows: at first, every usage is zero
    other_orders=("usage", "-usage"),
    extra_fields=("offering_uuid",),
)
COMPONENT_USER_USAGES = listing_pages(
    "marketplace_component_user_usages_list",
    "list the usage of single users of offering {uuid}",
    "marketplace-component-user-usages/",
    ComponentUserUsage,
    filters=("offering_uuid", "component_usage__billing_period"),
    ordered_by=None,
    other_orders=("username", "-username"),
    extra_fields=("offering_uuid",),
)
SET_USAGE = writing(
    "marketplace_component_usages_set_usage",
    "report the usage of resource {uuid}",
    f"{_PATH}set_usage/",
    body=("resource", "usages", "date"),
    safe_to_repeat=True,
)
USAGE_DATES = writing(  # sent without ``usages``, so that no server takes it
    "marketplace_component_usages_set_usage",
    "find out whether reports of usage may be dated",
    f"{_PATH}set_usage/",
    body=("usages", "date"),
    safe_to_repeat=True,
)
SET_USER_USAGE = writing(
    "marketplace_component_usages_set_user_usage",
    "report one user's part of component usage {uuid}",
    f"{_PATH}{{uuid}}/set_user_usage/",
    body=("username", "usage", "user"),
    safe_to_repeat=True,
)
SET_USER_USAGES = writing(
    "marketplace_component_usages_set_user_usages",
    "report the users' parts of component usage {uuid}",
    f"{_PATH}{{uuid}}/set_user_usages/",
    body=("usages",),
    safe_to_repeat=True,
)


_NO_DATE = "none"
"""What no server takes for a date."""


class UsageApi(ApiClient):
    """Usage of components by resources, and by single people. Amounts are in measured units.

    Every amount that is sent replaces the one that Waldur has of that month; nothing is added up,
    so that all of it may be sent again.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._usage_dates_accepted: bool | None = None
        self._usage_dates_lock = threading.Lock()

    def component_usages(
        self, offering_uuid: UUID | str, month: BillingMonth
    ) -> Listing[ComponentUsage]:
        """What Waldur has of a month, for all resources of an offering.

        Waldur cuts its months at midnight UTC and names them by their first day.
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
        """What Waldur has of a month for single people, in all resources of an offering."""
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
        """How many rows :meth:`component_user_usages` would bring, for one small request.

        Raises:
            TemporaryError: Also when the server does not say it.
        """
        return self._count(
            COMPONENT_USER_USAGES,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            component_usage__billing_period=month.first_day.isoformat(),
        )

    @property
    def usage_dates_accepted(self) -> bool | None:
        """What :meth:`accepts_usage_dates` found out; ``None`` before it was asked."""
        return self._usage_dates_accepted

    def accepts_usage_dates(self) -> bool:
        """Whether :meth:`set_usage` may be given a time; found out once, without the version.

        Servers before 7.9 ignore the date, and would book a past month's usage under the current
        one. The version tells that to staff alone, so the call itself is asked: a report without
        figures and with a date that is none is refused by every server and stores nothing, and a
        server that reads dates complains of this one.

        Raises:
            TemporaryError: Waldur could not be asked.
            AccessDeniedError: The token may not report usage.
            PermanentError: Another refusal that tells nothing about dates.
        """
        with self._usage_dates_lock:  # several threads may be about to report their first usage
            if self._usage_dates_accepted is None:
                self._usage_dates_accepted = self._complains_of_a_wrong_date()
            return self._usage_dates_accepted

    def _complains_of_a_wrong_date(self) -> bool:
        try:
            self._connection.send(Call.of(USAGE_DATES, body={"date": _NO_DATE}))
        except PastMonthRefusedError:
            return True
        except PermanentError as error:
            if type(error) is not PermanentError:
                raise  # 403, 404, 405 and the like tell nothing about dates
            return False  # it complains of the missing figures alone
        return False

    def set_usage(
        self,
        resource_uuid: UUID | str,
        amounts: Mapping[str, Decimal],
        when: datetime | None = None,
    ) -> None:
        """Report a resource's usage of the current month, or of the month of a moment in UTC.

        Args:
            resource_uuid: The resource; it must be OK, Updating or Terminating.
            amounts: By component type, in measured units with at most two decimals. All
                components belong together: old servers show only those of the last report.
            when: An aware time in the month that is meant, where the server accepts one. Without
                it the report is sent exactly once: repeated a moment later, it might be booked
                into the next month.

        Raises:
            PastMonthRefusedError: The month has passed, and the token is not of staff.
            PermanentError: Also where the resource's state or a component does not allow it.
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

    def set_user_usages(self, component_usage_uuid: UUID | str, parts: Sequence[UserUsage]) -> None:
        """Report what each of several people used of one component usage, in one go.

        People that are left out keep what Waldur has of them.

        Raises:
            AbsentOperationError: The server lacks it (before 8.0.5): report one by one.
        """
        usages = [self._part(part) for part in parts]
        self._write(SET_USER_USAGES, component_usage_uuid, {"usages": usages})

    def set_user_usage(self, component_usage_uuid: UUID | str, part: UserUsage) -> None:
        """Report what one person used of one component usage."""
        self._write(SET_USER_USAGE, component_usage_uuid, self._part(part))

    def _part(self, part: UserUsage) -> dict[str, object]:
        told: dict[str, object] = {"username": part.username, "usage": amount_text(part.usage)}
        if part.offering_user_uuid is not None:
            told["user"] = self._connection.address.join(
                f"marketplace-offering-users/{part.offering_user_uuid.hex}/"
            )
        return told
