"""A plan for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from waldur_site_agent.cycles.membership_report import MembershipReport
from waldur_site_agent.cycles.order_report import OrdersReport
from waldur_site_agent.service.journal import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent.cycles.report import CycleReport
    from waldur_site_agent.planning.membership import AccountPlan
    from waldur_site_agent.planning.orders import OrderPlan
    from waldur_site_agent.planning.plan import Step


def reports_json(reports: Sequence[CycleReport]) -> str:
    """All reports of a dry run as one JSON document."""
    return json.dumps([_report(report) for report in reports], indent=2, ensure_ascii=False)


def _report(report: CycleReport) -> dict[str, Any]:
    return {
        "offering": report.offering,
        "trouble": report.trouble,
        "refusal": report.refusal,
        "refused": [_step(step) for step in report.refused.steps],
        **_content(report),
    }


def _content(report: CycleReport) -> dict[str, Any]:
    match report:
        case OrdersReport():
            return {"orders": [_order(plan) for plan in report.plans]}
        case MembershipReport():
            return {
                "accounts": [_account(plan) for plan in report.membership.accounts],
                "home_directories": [_step(step) for step in report.membership.homes],
                "usernames": _usernames(report),
            }
        case _:
            return {}


def _usernames(report: MembershipReport) -> dict[str, Any]:
    if report.usernames is None:
        return {}
    return {
        "changes": [
            {
                "user": change.user.user_username,
                "what": change.what,
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


def _order(plan: OrderPlan) -> dict[str, Any]:
    return {
        "order": str(plan.order.uuid),
        "type": plan.order.type,
        "resource": plan.order.resource_name,
        "account": plan.backend_id,
        "problem": str(plan.problem or plan.unfinished or ""),
        "note": plan.note,
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
