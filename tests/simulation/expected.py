"""What should be, worked out from Waldur's records and the cluster's jobs alone.

Nothing here comes from the agent: no planning, no models, no conversion of its own.
"""

from __future__ import annotations

from calendar import monthrange
from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

from simulation.world import FACTORS, PREPAID, PREPAID_FACTOR, World
from waldur_site_agent_sandbox import PeriodicPolicy, Resource

_CENT = Decimal("0.01")
Parts = dict[str, dict[str, Decimal]]


def is_ending(world: World, resource: Resource) -> bool:
    """Whether the provider has begun to end a resource, or it has ended."""
    if resource.state == "Terminated":
        return True
    orders = world.sandbox.customer.world.orders_of(resource.uuid)
    begun = [o for o in orders if o.type == "Restore" or o.state in ("executing", "done")]
    return bool(begun) and max(begun, key=lambda order: order.created).type == "Terminate"


def granted(world: World) -> set[tuple[str, str]]:
    """Who may use which account now: pairs of account and username."""
    return {
        (resource.backend_id, name)
        for resource in world.resources
        if resource.backend_id and not is_ending(world, resource)
        for name in members_of(world, resource)
    }


def members_of(world: World, resource: Resource) -> set[str]:
    """Who may use a resource."""
    records, now = world.sandbox.customer.world, world.time.now()
    if resource.restrict_member_access:
        people: set[str] = set()
    else:
        team = {role.user for role in records.team(resource.project, now)}
        people = {
            user.username.lower()
            for user in records.offering_users.values()
            if user.user in team and user.state == "OK" and user.username and not user.is_restricted
        }
    accounts = {
        account.username.lower()
        for account in records.project_accounts.values()
        if account.project == resource.project and account.state == "OK" and account.username
    }
    return set() if resource.restrict_member_access else people | accounts


def limits_of(
    world: World, resource: Resource, *, with_moved_renewals: bool = False
) -> dict[str, int]:
    """The limits of an account, in the cluster's units; months as in :func:`months_of`."""
    months = months_of(world, resource, with_moved_renewals=with_moved_renewals)
    factors = {**FACTORS, PREPAID: PREPAID_FACTOR * months}
    return {
        name: int(Decimal(str(amount)) * factors[name])
        for name, amount in resource.limits.items()
        if amount is not None
    }


def months_of(world: World, resource: Resource, *, with_moved_renewals: bool) -> int:
    """How many months were paid in advance, counted one after the other.

    With or without renewals during which people moved the end date to an earlier day: whether the
    agent saw the day before or after that decides whether it takes them for months still to come.
    """
    if resource.end_date is None:
        return 1
    shown = resource.end_date.isoformat()
    paid = [
        date.fromisoformat(str(order.attributes["new_end_date"]))
        for order in world.sandbox.customer.world.orders_of(resource.uuid)
        if order.state == "done"
        and "new_end_date" in order.attributes
        and (order.extends_when == "never" or with_moved_renewals)
        and world.shown_when_done.get(order.uuid) == shown
    ]
    begin, end, months = resource.created.date(), max([resource.end_date, *paid]), 1
    while _later(begin, months) < end:
        months += 1
    return months


def _later(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def policy_of(world: World) -> PeriodicPolicy | None:
    """The periodic policy that the agent has to apply, if there is one."""
    policies = [*world.sandbox.customer.world.periodic_policies.values()]
    return policies[0] if world.has_budgets and policies else None


_MONTHS = {2: 1, 3: 3, 4: 12}


def period_of(world: World, policy: PeriodicPolicy) -> tuple[datetime, datetime] | None:
    """When the period of a policy began, and the one before; ``None`` if it has no end."""
    months = _MONTHS.get(policy.period)
    if months is None:
        return None
    now = world.time.now()
    first = now.year * 12 + (now.month - 1) // months * months
    begins = [datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in (first, first - months)]
    return begins[0], begins[1]


def seconds_used(
    world: World, resource: Resource, name: str, since: datetime, until: datetime | None = None
) -> int:
    """TRES-seconds of a resource's jobs."""
    first = int(max(since, resource.created).timestamp())
    last = int((until or world.time.now()).timestamp())
    return sum(
        max(0, min(last, last if run.end is None else run.end) - max(first, run.start))
        * run.tres.get(name, 0)
        for run in world.slurm.state.runs
        if world.owners[run.job] == resource.uuid
    )


def budgets_of(
    world: World, resource: Resource, policy: PeriodicPolicy
) -> dict[str, tuple[Fraction, Fraction]]:
    """Least and most of what the limits may be in this period, in the cluster's units.

    What was used before belongs to what is carried over: as Waldur has it, or as the jobs had.
    """
    budgets = {}
    grace = 1 + Fraction(str(policy.grace_ratio))
    for name, amount in resource.limits.items():
        sold = Fraction(str(amount))
        most = sold * Fraction(policy.carryover_factor, 100)
        carried = [Fraction(0), Fraction(0)]
        period = period_of(world, policy)
        if policy.carryover_enabled and period is not None:
            begin, before = period
            used = seconds_used(world, resource, name, before, begin)
            left = sold - Fraction(used, 60 * FACTORS[name])
            carried = [min(max(Fraction(0), left), most)] * 2
        rounding = Fraction(1, 100) if carried[0] not in (0, most) else Fraction(0)
        low, high = (sold + c + r for c, r in zip(carried, (-rounding, rounding), strict=True))
        budgets[name] = (low * FACTORS[name] * grace, high * FACTORS[name] * grace)
    return budgets


def user_limits_of(world: World, resource: Resource) -> dict[str, dict[str, int]]:
    """The limits that Waldur has for single people of a resource, in the cluster's units."""
    records = world.sandbox.customer.world
    limits: dict[str, dict[str, int]] = defaultdict(dict)
    for limit in records.user_limits.values():
        user = records.offering_users.get(limit.account)
        if limit.resource == resource.uuid and user is not None and user.username:
            amount = int(Decimal(limit.limit) * FACTORS[limit.component_type])
            limits[user.username.lower()][limit.component_type] = amount
    return dict(limits)


def usage_of(world: World, resource: Resource, month: date) -> tuple[dict[str, Decimal], Parts]:
    """What a resource used in a month: by component, and by component and user."""
    begin = datetime(month.year, month.month, 1, tzinfo=UTC)
    end = datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)
    first = int(max(begin, resource.created).timestamp())
    last = int(min(end, world.time.now()).timestamp())
    used: dict[str, dict[str, int]] = {name: defaultdict(int) for name in FACTORS}
    for run in world.slurm.state.runs:
        if world.owners[run.job] != resource.uuid:
            continue
        seconds = min(last, last if run.end is None else run.end) - max(first, run.start)
        for name in FACTORS:
            used[name][run.user] += max(0, seconds) * run.tres.get(name, 0)
    totals, parts = {}, {}
    for name, by_user in used.items():
        exact = {u: Fraction(n, 60 * FACTORS[name]) for u, n in by_user.items() if n}
        totals[name] = _rounded(sum(exact.values(), Fraction(0)))
        parts[name] = _shared_out(exact, totals[name])
    return totals, parts


def _rounded(exact: Fraction) -> Decimal:
    cents = exact * 100
    whole = cents.numerator // cents.denominator
    rest = cents - whole
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    return (Decimal(whole + up) / 100).quantize(_CENT, ROUND_HALF_EVEN)


def _shared_out(exact: dict[str, Fraction], total: Decimal) -> dict[str, Decimal]:
    """Each part cut to the cent; missing cents go to those who lost most, ties by name."""
    cut = {user: int(amount * 100) for user, amount in exact.items()}
    missing = int(total * 100) - sum(cut.values())
    losses = sorted(exact, key=lambda user: (-(exact[user] * 100 - cut[user]), user))
    for user in losses[: max(0, missing)]:
        cut[user] += 1
    return {user: Decimal(cents) / 100 for user, cents in cut.items() if cents}
