"""A plan for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from waldur_site_agent.cycles.membership_report import MembershipReport
from waldur_site_agent.cycles.order_report import OrdersReport
from waldur_site_agent.cycles.usage_report import UsageCycleReport
from waldur_site_agent.service.journal import plain, plain_write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent.cycles.report import CycleReport
    from waldur_site_agent.cycles.usage_report import MonthOutcome
    from waldur_site_agent.planning.membership import AccountPlan
    from waldur_site_agent.planning.orders import OrderPlan
    from waldur_site_agent.planning.plan import Step
    from waldur_site_agent.planning.usage import ComponentReport, PartsChange
    from waldur_site_agent.planning.writes import Write


def reports_json(reports: Sequence[CycleReport]) -> str:
    """All reports of a dry run as one JSON document."""
    return json.dumps([_report(report) for report in reports], indent=2, ensure_ascii=False)


def _report(report: CycleReport) -> dict[str, Any]:
    return {
        "offering": report.offering,
        "made": not report.trouble,
        "trouble": report.trouble,
        "refusal": report.refusal,
        "refused": [_step(step) for step in report.refused.steps],
        **_content(report),
        "waldur": [_write(write) for write in report.writes],
    }


def _write(write: Write) -> dict[str, Any]:
    entry = plain_write(write)
    del entry["side"]
    return entry


def _content(report: CycleReport) -> dict[str, Any]:
    match report:
        case OrdersReport():
            return {"orders": [_order(plan, report.waiting) for plan in report.plans]}
        case MembershipReport():
            return {
                "accounts": [_account(plan) for plan in report.membership.accounts],
                "unlimited": list(report.membership.unlimited),
                "home_directories": [_step(step) for step in report.membership.homes],
                "usernames": _usernames(report),
                "removals_suspended": report.removals_suspended,
                "failures": list(report.failures),
            }
        case UsageCycleReport():
            return {
                "usage": [entry for outcome in report.months for entry in month_json(outcome)],
                "skipped": list(report.skipped),
                "failures": list(report.failures),
            }
        case _:
            return {}


def month_json(outcome: MonthOutcome) -> list[dict[str, Any]]:
    """The usage of a month, an entry for each resource; amounts are text, they are exact."""
    plan = outcome.plan
    parts = {(change.account, change.component): change for change in outcome.part_changes}
    return [
        {
            "month": str(plan.month),
            "account": resource.account,
            "resource": resource.resource.name,
            "uuid": str(resource.resource.uuid),
            "components": {
                c.type: _usage(c) | {"user_changes": _parts(parts.get((resource.account, c.type)))}
                for c in resource.components
            },
        }
        for resource in plan.resources
    ]


def _parts(change: PartsChange | None) -> dict[str, Any]:
    """The users whose part is to be sent."""
    users = change.users if change is not None else {}
    return {
        name: {"before": None if old is None else f"{old:.2f}", "after": f"{new:.2f}"}
        for name, (old, new) in users.items()
    }


def _usage(component: ComponentReport) -> dict[str, Any]:
    return {
        "before": None if component.before is None else f"{component.before:.2f}",
        "after": f"{component.bill.total:.2f}",
        "news": component.is_news,
        "anomaly": component.is_anomaly,
        "users": {name: f"{part:.2f}" for name, part in component.bill.parts.items()},
    }


def _usernames(report: MembershipReport) -> dict[str, Any]:
    if report.usernames is None:
        return {}
    return {
        "changes": [
            {
                "user": change.user.user_username,
                "what": change.what,
                "changes": plain_write(change.write)["changes"] if change.write else [],
                "result": change.result.value,
                "reason": change.reason,
            }
            for change in report.usernames.changes
        ],
        "duplicates": {
            name: [person.user_username for person in people]
            for name, people in report.usernames.duplicates.items()
        },
    }


def _order(plan: OrderPlan, waiting: frozenset[str]) -> dict[str, Any]:
    return {
        "order": str(plan.order.uuid),
        "type": plan.order.type,
        "resource": plan.order.resource_name,
        "account": plan.backend_id,
        "problem": str(plan.problem or plan.unfinished or ""),
        "note": plan.note,
        "waiting": sorted(waiting & plan.newcomers),
        "steps": [_step(step) for step in plan.steps],
    }


def _account(plan: AccountPlan) -> dict[str, Any]:
    return {
        "account": plan.wanted.id,
        "resources": [str(resource.uuid) for resource in plan.wanted.resources],
        "trouble": plan.wanted.trouble,
        "missing": plan.is_missing,
        "waiting": list(plan.waiting),
        "unknown": list(plan.unknown),
        "limits_left": list(plan.limits.left) if plan.limits is not None else [],
        "steps": [_step(step) for step in plan.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "action": type(step.action).__name__,
        **plain(step.action),
        "reason": step.reason,
        "reasons": dict(step.reasons),
        "before": plain(dict(step.before)),
    }
