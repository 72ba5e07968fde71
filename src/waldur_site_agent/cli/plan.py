"""Prints plans: as text, a block per resource and a line per change, or as JSON."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from waldur_site_agent.backends import (
    AddMembers,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetAccess,
    SetLimits,
    SetMemberLimits,
)
from waldur_site_agent.cli.start import on_one_line
from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent.cycles.order_inputs import OrdersReport
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.cycles.usage_sending import MonthOutcome, UsageCycleReport
from waldur_site_agent.planning.membership import AccountPlan
from waldur_site_agent.planning.orders import OrderPlan, order_writes
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.planning.usage import ComponentReport, PartsChange
from waldur_site_agent.planning.writes import Call, Write
from waldur_site_agent.service.journal import plain, plain_write

_COLUMN = 14
_SHOWN_USERS = 8

Change = tuple[str, str, str]
"""Sign, subject and explanation."""

IN_WALDUR = "w"
"""The sign of changes in Waldur."""

Block = tuple[str, list[str], list[Change]]
"""A heading, remarks, and the changes below it."""


def report_text(report: CycleReport) -> str:
    """What one cycle would do, as text."""
    if report.trouble:
        return f"No plan could be made: {on_one_line(report.trouble)}"
    writes = _by_subject(w for w in report.writes if w.call is not Call.REFRESH_LAST_SYNC)
    match report:
        case OrdersReport():
            blocks = [_order_block(plan, report) for plan in report.plans]
            said = [write for plan in report.plans for write in _writes_of(plan, report)]
            writes = _by_subject(write for write in report.writes if write not in said)
            rest = f"{len(report.plans)} orders."
        case MembershipReport():
            blocks = [
                block
                for plan in report.membership.accounts
                if _says(block := _account_block(plan, writes.pop(plan.wanted.id, ())))
            ]
            blocks += list(_people_blocks(report))
            if report.failures:
                blocks.append(("Not foreseen", [f"  ! {text}" for text in report.failures], []))
            if report.impairment:
                blocks.insert(0, ("Removals", [f"  ! {report.impairment}"], []))
            unchanged = sum(not plan.steps for plan in report.membership.accounts)
            rest = f"{unchanged} resources unchanged."
        case UsageCycleReport():
            blocks = [*_usage_blocks(report), *_skipped_blocks(report)]
            rest = f"{_unchanged(report)} resources unchanged."
        case _:
            blocks, rest = [], ""
    blocks += list(_other_writes(writes))
    blocks += list(_sync_marks(report.writes))
    lines = list(_lines(blocks))
    if report.refusal:
        lines.append(f"! removals refused: {report.refusal}")
    signs = Counter(sign for _, _, changes in blocks for sign, _, _ in changes)
    signs[IN_WALDUR] = sum(_number_of_changes(write) for write in report.writes)
    return "\n".join([*lines, _footer(signs, rest, is_empty=not blocks)])


def what_it_is_about(report: CycleReport) -> str:
    """The subject of a report in a word, for headings."""
    match report:
        case OrdersReport():
            return "orders"
        case MembershipReport():
            return "members"
        case UsageCycleReport():
            return "usage"
        case _:
            return "everything"


def _lines(blocks: Iterable[Block]) -> Iterator[str]:
    for heading, remarks, changes in blocks:
        yield on_one_line(heading)
        yield from map(on_one_line, remarks)
        for sign, subject, explanation in changes:
            shown = "~" if sign == IN_WALDUR else sign
            yield on_one_line(f"  {shown} {subject:<{_COLUMN}} {explanation}".rstrip())


def _footer(signs: Counter[str], rest: str, *, is_empty: bool) -> str:
    if not signs.total():
        return "No changes." if is_empty else f"Plan: no changes; {rest}"
    in_waldur = f", {signs[IN_WALDUR]} in Waldur" if signs[IN_WALDUR] else ""
    counts = f"{signs['+']} to add, {signs['-']} to remove, {signs['~']} to change{in_waldur}"
    return f"Plan: {counts}; {rest}".rstrip("; ")


def _says(block: Block) -> bool:
    _, remarks, changes = block
    return bool(remarks or changes)


def _writes_of(plan: OrderPlan, report: OrdersReport) -> tuple[Write, ...]:
    return order_writes(plan, report.last_usage.get(plan.order.uuid, ()))


def _order_block(plan: OrderPlan, report: OrdersReport) -> Block:
    order = plan.order
    name = plan.backend_id or "(no account)"
    project = f" (project {order.project_slug})" if order.project_slug else ""
    heading = f"{name}  {order.resource_name}{project}: {order.type} order {order.uuid}"
    changes = [change for step in plan.steps for change in step_changes(step)]
    changes += [change for write in _writes_of(plan, report) for change in write_changes(write)]
    remarks = list(_order_remarks(plan))
    late = sorted(report.waiting & plan.newcomers)
    if late:
        remarks.append(_waiting_text(late))
        changes = [c for c in changes if c[0] != "+" or c[1] not in late]
    return heading, remarks, changes


def _by_subject(writes: Iterable[Write]) -> dict[str, list[Write]]:
    groups: dict[str, list[Write]] = defaultdict(list)
    for write in writes:
        groups[write.about].append(write)
    return groups


def _other_writes(writes: Mapping[str, Iterable[Write]]) -> Iterator[Block]:
    """Changes in Waldur that belong to none of the blocks above."""
    changes = [
        (sign, subject, f"{name}  {text}")
        for name, group in writes.items()
        for write in group
        for sign, subject, text in write_changes(write)
    ]
    if changes:
        yield "Other changes in Waldur", [], changes


def _sync_marks(writes: Iterable[Write]) -> Iterator[Block]:
    """One line for all of them."""
    marks = sum(write.call is Call.REFRESH_LAST_SYNC for write in writes)
    if marks:
        yield "Time of the last synchronization", [], [(IN_WALDUR, "in Waldur", f"{marks} renewed")]


def write_changes(write: Write) -> Iterator[Change]:
    """The lines of one change in Waldur; a created object is one line."""
    if write.call is Call.CREATE_BACKEND_RESOURCE:
        yield IN_WALDUR, "in Waldur", f"{write}  {write.reason}"
        return
    if isinstance(write.value, PartsChange):
        text = f"usage {write.value.component} by user: {_parts_text(write.value)}"
        yield IN_WALDUR, "in Waldur", f"{text}  {write.reason}"
        return
    for change in write.changes:
        yield IN_WALDUR, "in Waldur", f"{change}  {write.reason}"


def _number_of_changes(write: Write) -> int:
    is_one_line = write.call in (Call.CREATE_BACKEND_RESOURCE, Call.SET_USER_USAGES)
    return 1 if is_one_line else len(write.changes)


def _order_remarks(plan: OrderPlan) -> Iterator[str]:
    if plan.problem is not None:
        yield f"  ! {plan.problem}"
    elif plan.unfinished is not None:
        yield f"  ! {plan.unfinished}"
    if plan.note:
        yield f"    {plan.note}"
    if plan.problem is None and not plan.steps and not plan.note:
        yield "    nothing to change; the order is only marked as done"


def _account_block(plan: AccountPlan, writes: Iterable[Write]) -> Block:
    remarks = []
    if plan.is_missing:
        remarks.append("  ! the backend does not have this account")
    if plan.wanted.trouble:
        remarks.append(f"  ! nobody joins or leaves: {plan.wanted.trouble}")
    if plan.limits is not None:
        remarks += [f"    {text}" for text in plan.limits.left]
    if plan.waiting:
        remarks.append(_waiting_text(plan.waiting))
    if plan.unknown:
        remarks.append(f"    not known to Waldur, left alone: {', '.join(plan.unknown)}")
    changes = [change for step in plan.steps for change in step_changes(step)]
    changes += [change for write in writes for change in write_changes(write)]
    return plan.wanted.title, remarks, changes


def _waiting_text(users: Iterable[str]) -> str:
    return f"    waiting until the system knows them: {', '.join(users)}"


def _usage_blocks(report: UsageCycleReport) -> Iterator[Block]:
    for outcome in report.months:
        parts = {(change.account, change.component): change for change in outcome.part_changes}
        for plan in outcome.plan.resources:
            remarks = [
                f"  ! {c.type} {amount_text(c.bill.total)} is lower than {amount_text(c.before)} "
                "in Waldur; not sent"
                for c in plan.components
                if c.is_anomaly
            ]
            changes: list[Change] = []
            for c in plan.components:
                if c.is_changed:
                    text = f"{amount_text(c.before)} -> {amount_text(c.bill.total)}"
                    changes.append(("~", c.type, text))
                if (plan.account, c.type) in parts:
                    text = _parts_text(parts[plan.account, c.type])
                    changes.append(("~", f"{c.type} by user", text))
            block = (
                f"{plan.account}  {plan.resource.name} in {outcome.plan.month}",
                remarks,
                changes,
            )
            if _says(block):
                yield block


def _skipped_blocks(report: UsageCycleReport) -> Iterator[Block]:
    if report.failures or report.skipped:
        yield (
            "Not reported",
            [*(f"  ! {text}" for text in report.failures), *(f"    {t}" for t in report.skipped)],
            [],
        )


def _parts_text(parts: PartsChange) -> str:
    """The users whose usage changes, or the first of them if there are many."""
    texts = [
        f"{user} {amount_text(old)} -> {amount_text(new)}"
        for user, (old, new) in parts.users.items()
    ]
    more = len(texts) - _SHOWN_USERS
    return ", ".join(texts[:_SHOWN_USERS]) + (f" and {more} more" if more > 0 else "")


def _unchanged(report: UsageCycleReport) -> int:
    return sum(
        not plan.is_changed
        and plan.account not in {change.account for change in outcome.part_changes}
        for outcome in report.months[-1:]
        for plan in outcome.plan.resources
    )


def amount_text(amount: Decimal | None) -> str:
    """An amount of measured units, rounded for display."""
    return "none" if amount is None else f"{amount:.2f}"


def _people_blocks(report: MembershipReport) -> Iterator[Block]:
    homes = [change for step in report.membership.homes for change in step_changes(step)]
    if homes:
        yield "Home directories", [], homes
    if report.membership.unlimited:
        yield "Without a limit", [f"    {text}" for text in report.membership.unlimited], []
    if report.usernames is None:
        return
    if report.usernames.changes:
        names = [
            ("~", change.user.user_username or str(change.user.uuid), change.text)
            for change in report.usernames.changes
        ]
        yield "Usernames", [], names
    for name, people in sorted(report.usernames.duplicates.items()):
        persons = ", ".join(person.user_username or str(person.uuid) for person in people)
        yield f'Username "{name}"', [f"  ! belongs to several people: {persons}"], []


def step_changes(step: Step) -> Iterator[Change]:
    """The lines of one step of a plan."""
    match step.action:
        case CreateResource(placement=placement, limits=limits):
            above = " > ".join(name for _, name in placement.names())
            yield "+", "account", f"{above}  {step.reason}"
            yield from _limit_changes("limit", limits, {}, "with the account")
        case DeleteResource():
            yield "-", "account", step.reason
        case SetLimits(limits=limits):
            yield from _limit_changes("limit", limits, step.before, step.reason, step.reasons)
        case SetMemberLimits(member=member, limits=limits):
            yield from _limit_changes(member, limits, step.before, step.reason)
        case AddMembers(members=members):
            yield from (("+", name, step.reasons.get(name, step.reason)) for name in members)
        case RemoveMembers(members=members):
            yield from (("-", name, step.reasons.get(name, step.reason)) for name in members)
        case SetAccess():
            yield "~", "access", step.reason
        case CreateHomeDirectories(users=users):
            yield from (("+", name, step.reason) for name in users)


def _limit_changes(
    subject: str,
    limits: Mapping[str, Decimal | None],
    before: Mapping[str, Decimal],
    reason: str,
    reasons: Mapping[str, str] | None = None,
) -> Iterator[Change]:
    for component, amount in sorted(limits.items()):
        old = before.get(component)
        change = f"{'none' if old is None else f'{old:f}'} -> "
        change += "none" if amount is None else f"{amount:f}"
        why = (reasons or {}).get(component, reason)
        yield "~", subject, f"{component} {change}  {why}"


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
    """The usage of a month, one entry per resource; amounts are text, to stay exact."""
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
    """The users whose usage is to be sent."""
    users = change.users if change is not None else {}
    return {
        name: {"before": None if old is None else f"{old:.2f}", "after": f"{new:.2f}"}
        for name, (old, new) in users.items()
    }


def _usage(component: ComponentReport) -> dict[str, Any]:
    return {
        "before": None if component.before is None else f"{component.before:.2f}",
        "after": f"{component.bill.total:.2f}",
        "news": component.is_changed,
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
