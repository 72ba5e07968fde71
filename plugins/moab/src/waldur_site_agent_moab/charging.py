"""What jobs cost becomes usage of a period. Pure and exact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from waldur_site_agent.model.usage import Period, ResourceUsage, UsageReport
from waldur_site_agent_moab.accounts import DEPOSIT
from waldur_site_agent_moab.facts import Charge


def days_to_ask_for(periods: Sequence[Period], longest_job: timedelta) -> tuple[date, date]:
    """The days whose usage records hold every job that ended in one of the periods.

    Whether the list goes by a job's start or by its end differs between versions, and so does
    the time zone of its days: so a longest job is added before, and two days on both sides.
    """
    margin = timedelta(days=2)
    start = min(period.start.astimezone(UTC) for period in periods) - longest_job - margin
    end = max(period.end.astimezone(UTC) for period in periods) + margin
    return start.date(), end.date()


def reports(
    charges: Iterable[Charge], since: Mapping[str, datetime], periods: Sequence[Period]
) -> tuple[UsageReport, ...]:
    """Add up what was charged, by period, account and user.

    A charge is booked when its job ends, whole, and belongs to the period of that moment. A job
    that started before the moment in ``since`` belonged to an earlier account of the same name.
    """
    books = [_Book(since, period) for period in periods]
    for charge in charges:
        if charge.amount:
            for book in books:
                book.enter(charge)
    return tuple(book.report() for book in books)


class _Book:
    """What is added up for one period."""

    def __init__(self, since: Mapping[str, datetime], period: Period) -> None:
        self._since = {name.lower(): (name, moment) for name, moment in since.items()}
        self._period = period
        self._amounts: dict[str, defaultdict[str, Fraction]] = {
            name: defaultdict(Fraction) for name in since
        }
        self._without_user: list[Fraction] = []

    def enter(self, charge: Charge) -> None:
        """Count a charge, if it belongs here."""
        name, since = self._since.get(charge.account, ("", None))
        if since is None or charge.end is None:
            return
        if not self._period.start <= charge.end < self._period.end:
            return
        if (charge.start or charge.end) < since:
            return
        amount = Fraction(charge.amount)
        if charge.user:
            self._amounts[name][charge.user] += amount
        else:
            self._without_user.append(amount)

    def report(self) -> UsageReport:
        """What came together."""
        remarks = []
        if self._without_user:
            total = float(sum(self._without_user))
            remarks.append(
                f"{len(self._without_user)} usage records of {total:.2f} in total name no user "
                "and are not counted; look at mam-list-usagerecords"
            )
        return UsageReport(
            period=self._period,
            resources={
                name: ResourceUsage(
                    by_user={user: {DEPOSIT: amount} for user, amount in users.items()}
                )
                for name, users in self._amounts.items()
            },
            remarks=tuple(remarks),
        )
