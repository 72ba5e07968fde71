"""Periodic usage policies: the settings that the server computes and sends.

As the server has it: a month is a calendar month of its own clock, every component counts as hours
of one TRES, carry-over is granted to new resources, too, and a reset is in the first message of a
period only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import date, timedelta

from waldur_site_agent_sandbox.broker import Occurrence
from waldur_site_agent_sandbox.records import (
    JsonObject,
    PeriodicPolicy,
    PolicyMessage,
    Resource,
)
from waldur_site_agent_sandbox.store import Transaction

_KINDS = {"total": 1, "month": 2, "quarterly": 3, "annual": 4}
_MONTHS = {2: 1, 3: 3, 4: 12}
PERIOD_NAMES = {1: "Total", 2: "1 month", 3: "3 month", 4: "12 month"}
_FORGOTTEN_AFTER = timedelta(days=1)
_PERIOD_FORGOTTEN_AFTER = timedelta(days=90)
DEFAULT_WEIGHTS = {"CPU": 0.015625, "Mem": 0.001953125, "GRES/gpu": 0.25}
_ACCOUNTS = 3
_LIMIT_KEYS = {
    "GrpTRESMins": "grp_tres_mins",
    "MaxTRESMins": "max_tres_mins",
    "GrpTRES": "grp_tres",
}


def message(tx: Transaction, policy: PeriodicPolicy, resource: Resource) -> Occurrence | None:
    """Compute the settings of a resource and remember them; ``None`` if nothing is to be sent."""
    period = period_of(tx, policy)
    before = next(
        (
            row
            for row in tx.world.policy_messages.values()
            if (row.policy, row.resource) == (policy.uuid, resource.uuid)
        ),
        None,
    )
    known = before is not None and tx.now - before.created < _PERIOD_FORGOTTEN_AFTER
    is_first = not (known and before is not None and before.period == period)
    settings = settings_of(tx, policy, resource, period, is_first=is_first)
    recent = before is not None and tx.now - before.created < _FORGOTTEN_AFTER
    if before is not None and recent and _lasting(before.settings) == _lasting(settings):
        return None
    tx.world.put(
        PolicyMessage(
            uuid=before.uuid if before is not None else tx.new_uuid(),
            created=tx.now,
            policy=policy.uuid,
            resource=resource.uuid,
            period=period,
            settings=settings,
        )
    )
    return Occurrence(
        object_type="resource_periodic_limits",
        offering=policy.offering,
        payload={
            "resource_uuid": resource.uuid,
            "backend_id": resource.backend_id,
            "policy_uuid": policy.uuid,
            "action": "apply_periodic_settings",
            "settings": settings,
            "timestamp": tx.now.replace(tzinfo=None).isoformat(),
        },
    )


def _lasting(settings: JsonObject) -> JsonObject:
    return {key: value for key, value in settings.items() if key != "reset_raw_usage"}


def period_of(tx: Transaction, policy: PeriodicPolicy) -> str:
    """The label of the current period."""
    kind, today = _kind(tx, policy), tx.now.date()
    labels = {
        1: "total",
        2: f"{today:%Y-%m}",
        3: f"{today.year}-Q{(today.month + 2) // 3}",
        4: f"{today.year}",
    }
    return labels[kind]


def _kind(tx: Transaction, policy: PeriodicPolicy) -> int:
    components = tx.world.offerings[policy.offering].components
    named = {c.limit_period for c in components if c.billing_type == "limit" and c.limit_period}
    return _KINDS.get(next(iter(named)), policy.period) if len(named) == 1 else policy.period


def settings_of(
    tx: Transaction, policy: PeriodicPolicy, resource: Resource, period: str, *, is_first: bool
) -> JsonObject:
    """The settings for a resource, as the server sends them."""
    base = {name: float(str(v)) for name, v in resource.limits.items() if v}
    carried = _carried(tx, policy, resource, base)
    totals = {name: amount + carried.get(name, 0.0) for name, amount in base.items()}
    minutes = {name: int(hours * 60) for name, hours in totals.items()}
    if policy.tres_billing_enabled:
        minutes["billing"] = int(_weighed(policy, totals) * 60)
    if policy.grace_ratio > 0:
        minutes = {n: int(m * (1 + policy.grace_ratio)) for n, m in minutes.items()}
    metric = "billing" if policy.tres_billing_enabled else "node"
    threshold = _weighed(policy, totals) if policy.tres_billing_enabled else sum(totals.values())
    return {
        "fairshare": max(1, math.floor(sum(totals.values()) / _ACCOUNTS)),
        "qos_threshold": {metric: int(threshold * 60)},
        "grace_limit": {metric: int(threshold * (1 + policy.grace_ratio) * 60)},
        "limit_type": policy.limit_type,
        "reset_raw_usage": policy.raw_usage_reset and is_first,
        "carryover_details": {"carryover_applied": bool(carried), "period": period},
        _LIMIT_KEYS[policy.limit_type]: dict(minutes),
    }


def _weighed(policy: PeriodicPolicy, totals: dict[str, float]) -> float:
    weights = policy.tres_billing_weights or DEFAULT_WEIGHTS
    by_type = {name.lower(): float(str(weight)) for name, weight in weights.items()}
    return sum(amount * by_type.get(name.lower(), 0.0) for name, amount in totals.items())


def _carried(
    tx: Transaction, policy: PeriodicPolicy, resource: Resource, base: dict[str, float]
) -> dict[str, float]:
    kind = _kind(tx, policy)
    if not policy.carryover_enabled or kind not in _MONTHS:
        return {}
    used: dict[str, float] = defaultdict(float)
    months = _months_before(tx.now.date(), _MONTHS[kind])
    for row in tx.world.component_usages.values():
        if row.resource == resource.uuid and row.billing_period in months:
            used[row.component_type] += float(row.usage)
    factor = policy.carryover_factor / 100
    return {
        name: min(max(0.0, amount - used[name]), factor * amount) for name, amount in base.items()
    }


def _months_before(today: date, length: int) -> set[date]:
    """The months of the period before the one that a day belongs to."""
    first = today.year * 12 + (today.month - 1) // length * length
    numbers = range(first - length, first)
    return {date(number // 12, number % 12 + 1, 1) for number in numbers}
