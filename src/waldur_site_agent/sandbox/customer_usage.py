"""The customer's side: what was used, as the portal shows it, and what only its database can."""

from collections import defaultdict
from datetime import date
from decimal import Decimal

from waldur_site_agent.sandbox import usage_rules
from waldur_site_agent.sandbox.finding import find
from waldur_site_agent.sandbox.portal import Portal
from waldur_site_agent.sandbox.records import Resource
from waldur_site_agent.sandbox.records_usage import ComponentUsage, UserUsage
from waldur_site_agent.sandbox.store import Transaction


class UsageSide(Portal):
    """Months are named by any of their days, or as ``2026-11``; none means the present one."""

    def usage_rows(
        self, resource: Resource | str, month: date | str | None = None
    ) -> list[ComponentUsage]:
        """Give the rows of a month as they are stored, oldest first."""
        tx = self._store.read()
        found = find(tx.world.resources, resource, "resources")
        first = _first_day(tx, month)
        rows = tx.world.component_usages.values()
        return [row for row in rows if (row.resource, row.billing_period) == (found.uuid, first)]

    def usages(
        self, resource: Resource | str, month: date | str | None = None
    ) -> dict[str, Decimal]:
        """Give what a customer pays for in a month, by component: the sum over all plans."""
        total: dict[str, Decimal] = defaultdict(Decimal)
        for row in self.usage_rows(resource, month):
            total[row.component_type] += row.usage
        return dict(total)

    def user_usages(
        self, resource: Resource | str, month: date | str | None = None
    ) -> dict[str, dict[str, Decimal]]:
        """Give what each person used in a month: username, then component."""
        used: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        for parent in self.usage_rows(resource, month):
            for row in usage_rules.user_rows(self._store.read(), parent):
                used[row.username][parent.component_type] += row.usage
        return {username: dict(amounts) for username, amounts in used.items()}

    def put_usage(
        self,
        resource: Resource | str,
        component_type: str,
        usage: Decimal | float | str,
        month: date | str | None = None,
        plan_period: str = "",
    ) -> ComponentUsage:
        """Store a usage as only an administrator of the database can, in any month.

        With a ``plan_period`` of its own, it is a second row beside the one that reports change.
        """
        with self._store.change() as tx:
            found = find(tx.world.resources, resource, "resources")
            first = _first_day(tx, month)
            before = usage_rules.row_of(tx, found.uuid, component_type, first, plan_period)
            row = ComponentUsage(
                uuid=before.uuid if before else tx.new_uuid(),
                created=before.created if before else tx.now,
                reported=tx.now,
                resource=found.uuid,
                component_type=component_type,
                billing_period=first,
                usage=Decimal(str(usage)),
                plan_period=plan_period,
            )
            tx.world.put(row)
        return row

    def put_user_usage(
        self,
        parent: ComponentUsage | str,
        username: str,
        usage: Decimal | float | str,
    ) -> UserUsage:
        """Store one person's part of a usage, as only an administrator of the database can."""
        with self._store.change() as tx:
            row = UserUsage(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                component_usage=find(tx.world.component_usages, parent, "usages").uuid,
                username=username,
                usage=Decimal(str(usage)),
            )
            tx.world.put(row)
        return row


def _first_day(tx: Transaction, month: date | str | None) -> date:
    if month is None:
        return usage_rules.month_of(tx.now)
    day = date.fromisoformat(f"{month}-01"[:10]) if isinstance(month, str) else month
    return day.replace(day=1)
