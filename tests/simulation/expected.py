"""What should be, worked out from Waldur's records and the cluster's jobs alone.

Nothing here comes from the agent: no planning, no models, no conversion of its own.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

from simulation.world import FACTORS, World
from waldur_site_agent_sandbox import Resource

_CENT = Decimal("0.01")
Parts = dict[str, dict[str, Decimal]]


def is_ending(world: World, resource: Resource) -> bool:
    """Whether the provider has begun to end a resource, or it has ended."""
    if resource.state == "Terminated":
        return True
    orders = world.sandbox.customer.world.orders_of(resource.uuid)
    return any(o.type == "Terminate" and o.state in ("executing", "done") for o in orders)


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


def limits_of(resource: Resource) -> dict[str, int]:
    """The limits of an account, in the cluster's units."""
    return {
        name: int(Decimal(str(amount)) * FACTORS[name])
        for name, amount in resource.limits.items()
        if amount is not None
    }


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
