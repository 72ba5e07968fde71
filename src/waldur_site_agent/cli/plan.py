"""Prints plans, as JSON or as text: a block per resource, a line per change, a footer.

The text is made from the JSON form, so that both always say the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from waldur_site_agent.backends import Grant
from waldur_site_agent.cli.output import json_text, on_one_line
from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent.cycles.order_inputs import OrdersReport
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.cycles.usage_sending import MonthOutcome, UsageCycleReport
from waldur_site_agent.planning.membership import AccountPlan
from waldur_site_agent.planning.orders import OrderPlan, order_writes
from waldur_site_agent.planning.plan import Call, Change, Step, Write, refusal_of
from waldur_site_agent.planning.usage import ComponentReport, UserUsageChange
from waldur_site_agent.service.journal import plain, plain_write

_COLUMN = 14
_SHOWN_USERS = 8
_NOTHING_TO_CHANGE = "nothing to change; the order is only marked as done"
_WITH_THE_ACCOUNT = {"before": {}, "reason": "with the account"}

Json: TypeAlias = dict[str, Any]

Line: TypeAlias = tuple[str, str, str]
"""Sign, subject and explanation of a change."""

IN_WALDUR = "w"
"""The sign of changes in Waldur."""

Block: TypeAlias = tuple[str, list[str], list[Line]]
"""A heading, remarks, and the changes below it."""


def reports_json(reports: Sequence[CycleReport]) -> str:
    """All reports of a dry run as one JSON document."""
    return json_text([report_json(report) for report in reports])


def report_text(report: CycleReport) -> str:
    """What one cycle would do, as text."""
    return plan_text(report_json(report))


def report_json(report: CycleReport) -> Json:
    """What one cycle would do, as JSON values."""
    return {
        "offering": report.offering,
        "subject": what_it_is_about(report),
        "made": not report.trouble,
        "trouble": report.trouble,
        "refusal": report.refused_reason,
        "refused_kind": refusal_of(report.refused) if report.refused_reason else "",
        "digest": report.digest,
        "refused": [step_json(step) for step in report.refused.steps],
        **_content(report),
        "waldur": [_write(write) for write in report.writes],
    }


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


def _content(report: CycleReport) -> Json:
    match report:
        case OrdersReport():
            return {"orders": [_order(plan, report) for plan in report.plans]}
        case MembershipReport():
            return {
                "accounts": [_account(plan) for plan in report.membership.accounts],
                "unlimited": list(report.membership.unlimited),
                "home_directories": [step_json(step) for step in report.membership.homes],
                "usernames": _usernames(report),
                "removals_suspended": report.removals_suspended,
                "impairment": report.impairment,
                "failures": list(report.failures),
            }
        case UsageCycleReport():
            return {
                "months": [str(outcome.plan.month) for outcome in report.months],
                "usage": [entry for outcome in report.months for entry in month_json(outcome)],
                "skipped": list(report.skipped),
                "failures": list(report.failures),
            }
        case _:
            return {}


def _order(plan: OrderPlan, report: OrdersReport) -> Json:
    writes = order_writes(plan, report.last_usage.get(plan.order.uuid, ()))
    return {
        "order": str(plan.order.uuid),
        "type": str(plan.order.type),
        "resource": plan.order.resource_name,
        "project": plan.order.project_slug,
        "account": plan.backend_id,
        "problem": str(plan.problem or plan.unfinished or ""),
        "note": plan.note,
        "missing_limits": plan.missing_limits_text,
        "ends": plan.context.resource.end_text,
        "waiting": sorted(report.waiting & plan.newcomers),
        "steps": [step_json(step) for step in plan.steps],
        "waldur": [_write(write) for write in writes],
    }


def _account(plan: AccountPlan) -> Json:
    return {
        "account": plan.wanted.id,
        "title": plan.wanted.title,
        "ends": plan.wanted.resources[0].end_text,
        "resources": [str(resource.uuid) for resource in plan.wanted.resources],
        "trouble": plan.wanted.trouble,
        "missing": plan.is_missing,
        "not_made_again": plan.wanted.creation_problem,
        "not_moved": plan.wanted.not_moved,
        "kept_out": list(plan.kept_out),
        "nobody_joins": plan.wanted.nobody_joins,
        "waiting": list(plan.waiting),
        "unknown": list(plan.unknown),
        "limits_left": list(plan.limits.left) if plan.limits is not None else [],
        "budget_problem": str((plan.budget and plan.budget.problem) or ""),
        "steps": [step_json(step) for step in plan.steps],
    }


def _usernames(report: MembershipReport) -> Json:
    if report.usernames is None:
        return {}
    return {
        "changes": [
            {
                "user": change.user.user_username or str(change.user.uuid),
                "what": change.what,
                "changes": plain_write(change.write)["changes"] if change.write else [],
                "result": change.result.value,
                "reason": change.reason,
                "text": change.text,
            }
            for change in report.usernames.changes
        ],
        "duplicates": {
            name: [person.user_username or str(person.uuid) for person in people]
            for name, people in report.usernames.duplicates.items()
        },
    }


def month_json(outcome: MonthOutcome) -> list[Json]:
    """The usage of a month, one entry per resource; amounts are text, to stay exact."""
    plan = outcome.plan
    parts = {(change.account, change.component): change for change in outcome.user_usage_changes}
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


def _usage(component: ComponentReport) -> Json:
    return {
        "before": None if component.before is None else f"{component.before:.2f}",
        "after": f"{component.bill.total:.2f}",
        "news": component.is_changed,
        "anomaly": component.is_anomaly,
        "users": {name: f"{part:.2f}" for name, part in component.bill.user_usages.items()},
    }


def _parts(change: UserUsageChange | None) -> Json:
    """The users whose usage is to be sent."""
    users = change.users if change is not None else {}
    return {
        name: {"before": None if old is None else f"{old:.2f}", "after": f"{new:.2f}"}
        for name, (old, new) in users.items()
    }


def step_json(step: Step) -> Json:
    """One step of a plan, as JSON values."""
    return {
        "action": type(step.action).__name__,
        **plain(step.action),
        "reason": step.reason,
        "reasons": dict(step.reasons),
        "before": plain(dict(step.before)),
    }


def _write(write: Write) -> Json:
    entry = plain_write(write)
    del entry["side"]
    return entry


def plan_text(plan: Json) -> str:
    """The text of a plan in its JSON form."""
    if plan["trouble"]:
        return f"No plan could be made: {on_one_line(plan['trouble'])}"
    writes = [write for write in plan["waldur"] if write["action"] != Call.REFRESH_LAST_SYNC]
    match plan["subject"]:
        case "orders":
            blocks = [_order_block(order) for order in plan["orders"]]
            shown = [write for order in plan["orders"] for write in order["waldur"]]
            writes = [write for write in writes if write not in shown]
            rest = f"{len(plan['orders'])} orders."
        case "members":
            accounts = plan["accounts"]
            blocks = _membership_blocks(plan, writes)
            names = {account["account"] for account in accounts}
            writes = [write for write in writes if write["about"] not in names]
            rest = f"{sum(not account['steps'] for account in accounts)} resources unchanged."
        case "usage":
            blocks = [*_usage_blocks(plan["usage"]), *_skipped_blocks(plan)]
            rest = f"{_unchanged(plan)} resources unchanged."
        case _:
            blocks, rest = [], ""
    blocks += [*_other_writes(writes), *_sync_marks(plan["waldur"])]
    lines = list(_lines(blocks))
    if plan["refusal"]:
        lines.append(f"! {plan['refused_kind']}: {plan['refusal']}")
    signs = Counter(sign for _, _, changes in blocks for sign, _, _ in changes)
    signs[IN_WALDUR] = sum(_number_of_changes(write) for write in plan["waldur"])
    return "\n".join([*lines, _footer(signs, rest, is_empty=not blocks)])


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


def _order_block(order: Json) -> Block:
    project = f" (project {order['project']})" if order["project"] else ""
    name = order["account"] or "(no account)"
    heading = f"{name}  {order['resource']}{project}: {order['type']} order {order['order']}"
    remarks = [f"  ! {order['problem']}"] if order["problem"] else []
    if order["ends"]:
        remarks.append(f"    {order['ends']}")
    if order["note"]:
        remarks.append(f"    {order['note']}")
    if order["missing_limits"]:
        remarks.append(f"    {order['missing_limits']}")
    if not (order["problem"] or order["steps"] or order["note"]):
        remarks.append(f"    {_NOTHING_TO_CHANGE}")
    changes = [*_all_step_changes(order["steps"]), *_all_write_changes(order["waldur"])]
    late = order["waiting"]
    if late:
        remarks.append(_waiting_text(late))
        changes = [c for c in changes if c[0] != "+" or c[1] not in late]
    return heading, remarks, changes


def _membership_blocks(plan: Json, writes: Iterable[Json]) -> list[Block]:
    by_account: dict[str, list[Json]] = defaultdict(list)
    for write in writes:
        by_account[write["about"]].append(write)
    blocks = [_account_block(a, by_account.pop(a["account"], ())) for a in plan["accounts"]]
    blocks = [block for block in blocks if _has_content(block)]
    homes = _all_step_changes(plan["home_directories"])
    if homes:
        blocks.append(("Home directories", [], homes))
    if plan["unlimited"]:
        blocks.append(("Without a limit", [f"    {text}" for text in plan["unlimited"]], []))
    blocks += _username_blocks(plan["usernames"])
    if plan["failures"]:
        blocks.append(("Not foreseen", [f"  ! {text}" for text in plan["failures"]], []))
    if plan["impairment"]:
        blocks.insert(0, ("Removals", [f"  ! {plan['impairment']}"], []))
    return blocks


def _account_block(account: Json, writes: Iterable[Json]) -> Block:
    remarks = []
    if account["missing"]:
        remarks.append("  ! the backend does not have this account")
    if account["not_made_again"]:
        remarks.append(f"  ! it cannot be made again: {account['not_made_again']}")
    if account["not_moved"]:
        remarks.append(f"    left where it is: {account['not_moved']}")
    if account["kept_out"]:
        names = ", ".join(account["kept_out"])
        remarks.append(f"  ! not added: {names}: {account['nobody_joins']}")
    if account["trouble"]:
        remarks.append(f"  ! nobody joins or leaves: {account['trouble']}")
    remarks += [f"    {text}" for text in account["limits_left"]]
    if account["budget_problem"]:
        remarks.append(f"  ! budget not set: {account['budget_problem']}")
    if account["waiting"]:
        remarks.append(_waiting_text(account["waiting"]))
    if account["unknown"]:
        remarks.append(f"    not known to Waldur, left alone: {', '.join(account['unknown'])}")
    changes = [*_all_step_changes(account["steps"]), *_all_write_changes(writes)]
    return account["title"], remarks, changes


def _has_content(block: Block) -> bool:
    _, remarks, changes = block
    return bool(remarks or changes)


def _waiting_text(users: Iterable[str]) -> str:
    return f"    waiting until the system knows them: {', '.join(users)}"


def _username_blocks(usernames: Json) -> Iterator[Block]:
    names = [("~", each["user"], each["text"]) for each in usernames.get("changes", ())]
    if names:
        yield "Usernames", [], names
    for name, people in sorted(usernames.get("duplicates", {}).items()):
        yield f'Username "{name}"', [f"  ! belongs to several people: {', '.join(people)}"], []


def _usage_blocks(entries: Iterable[Json]) -> Iterator[Block]:
    for entry in entries:
        remarks = []
        changes: list[Line] = []
        for name, c in entry["components"].items():
            if c["anomaly"]:
                remarks.append(
                    f"  ! {name} {c['after']} is lower than {_shown(c['before'])} in Waldur; "
                    "not sent"
                )
            if c["news"]:
                changes.append(("~", name, f"{_shown(c['before'])} -> {c['after']}"))
            if c["user_changes"]:
                users = {u: (v["before"], v["after"]) for u, v in c["user_changes"].items()}
                changes.append(("~", f"{name} by user", _users_text(users)))
        block = (f"{entry['account']}  {entry['resource']} in {entry['month']}", remarks, changes)
        if _has_content(block):
            yield block


def _skipped_blocks(plan: Json) -> Iterator[Block]:
    remarks = [f"  ! {text}" for text in plan["failures"]]
    remarks += [f"    {text}" for text in plan["skipped"]]
    if remarks:
        yield "Not reported", remarks, []


def _unchanged(plan: Json) -> int:
    return sum(
        not any(c["news"] or c["user_changes"] for c in entry["components"].values())
        for entry in plan["usage"]
        if entry["month"] == plan["months"][-1]
    )


def _users_text(users: Mapping[str, tuple[str | None, str | None]]) -> str:
    """The users whose usage changes, or the first of them if there are many."""
    texts = [f"{user} {_shown(old)} -> {_shown(new)}" for user, (old, new) in users.items()]
    more = len(texts) - _SHOWN_USERS
    return ", ".join(texts[:_SHOWN_USERS]) + (f" and {more} more" if more > 0 else "")


def _shown(amount: str | None) -> str:
    return "none" if amount is None else amount


def amount_text(amount: Decimal | None) -> str:
    """An amount of measured units, rounded for display."""
    return "none" if amount is None else f"{amount:.2f}"


def _other_writes(writes: Iterable[Json]) -> Iterator[Block]:
    """Changes in Waldur that belong to none of the blocks above, grouped by what they are about."""
    by_subject: dict[str, list[Json]] = defaultdict(list)
    for write in writes:
        by_subject[write["about"]].append(write)
    changes = [
        (sign, subject, f"{name}  {text}")
        for name, group in by_subject.items()
        for sign, subject, text in _all_write_changes(group)
    ]
    if changes:
        yield "Other changes in Waldur", [], changes


def _sync_marks(writes: Iterable[Json]) -> Iterator[Block]:
    """One line for all of them."""
    marks = sum(write["action"] == Call.REFRESH_LAST_SYNC for write in writes)
    if marks:
        yield "Time of the last synchronization", [], [(IN_WALDUR, "in Waldur", f"{marks} renewed")]


def _all_write_changes(writes: Iterable[Json]) -> list[Line]:
    return [
        (IN_WALDUR, "in Waldur", f"{text}  {write['reason']}")
        for write in writes
        for text in _write_texts(write)
    ]


def _write_texts(write: Json) -> Iterator[str]:
    """The changes of one call; a created object, and usage by user, are one line."""
    changes = [Change(**change) for change in write["changes"]]
    match write["action"]:
        case Call.CREATE_BACKEND_RESOURCE:
            yield "; ".join(map(str, changes)) or write["action"]
        case Call.SET_USER_USAGES:
            # each field is "usage COMPONENT of USER"
            fields = [change.field.rpartition(" of ") for change in changes]
            users = {
                user: (change.old, change.new)
                for (_, _, user), change in zip(fields, changes, strict=True)
            }
            yield f"{fields[0][0] if fields else 'usage'} by user: {_users_text(users)}"
        case _:
            yield from map(str, changes)


def _number_of_changes(write: Json) -> int:
    is_one_line = write["action"] in (Call.CREATE_BACKEND_RESOURCE, Call.SET_USER_USAGES)
    return 1 if is_one_line else len(write["changes"])


def _all_step_changes(steps: Iterable[Json]) -> list[Line]:
    return [line for step in steps for line in step_changes(step)]


def step_changes(step: Json) -> Iterator[Line]:
    """The lines of one step of a plan in its JSON form."""
    reason, reasons = step["reason"], step["reasons"]
    match step["action"]:
        case "CreateResource":
            placement = step["placement"]
            names = [*(container["id"] for container in placement["containers"]), placement["id"]]
            yield "+", "account", f"{' > '.join(names)}  {reason}"
            yield from _limit_changes("limit", step | _WITH_THE_ACCOUNT)
        case "MoveContainer":
            name, parent = step["containers"][-1]["id"], step["containers"][-1]["parent"]
            yield "~", "parent", f"of {name}: {step['previous']} -> {parent}  {reason}"
        case "SetLimits" | "SetMemberLimits":
            yield from _limit_changes(step.get("member", "limit"), step)
        case "AddMembers":
            given = str(Grant(tuple(step["grant"]["partitions"]), step["grant"]["qos"]))
            more = f" ({given})" if given else ""
            yield from (("+", name, reasons.get(name, reason) + more) for name in step["members"])
        case "RemoveMembers":
            yield from (("-", name, reasons.get(name, reason)) for name in step["members"])
        case "SetBudget":
            yield from _budget_changes(step)
        case "CreateHomeDirectories":
            yield from (("+", name, reason) for name in step["users"])
        case other:
            yield *_NOT_IN_DETAIL.get(other, ("~", other)), reason


_NOT_IN_DETAIL = {
    "DeleteResource": ("-", "account"),
    "SetAccess": ("~", "access"),
    "CreateProjectDirectory": ("+", "project directory"),
    "ResetUsage": ("~", "usage reset"),
}


def _budget_changes(step: Json) -> Iterator[Line]:
    yield from _limit_changes("limit of a job" if step["per_job"] else "limit", step)
    if step["share"] is not None:
        before = _shown(step["before"].get("fairshare"))
        yield "~", "fairshare", f"{before} -> {step['share']}  {step['reason']}"


def _limit_changes(subject: str, step: Json) -> Iterator[Line]:
    for component, amount in sorted(step["limits"].items()):
        change = f"{_shown(step['before'].get(component))} -> {_shown(amount)}"
        why = step["reasons"].get(component, step["reason"])
        yield "~", subject, f"{component} {change}  {why}"
