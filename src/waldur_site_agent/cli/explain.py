"""``explain``: how a user, account, resource or order stands on both sides, on one screen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from waldur_site_agent.cli.output import json_text, on_one_line, say
from waldur_site_agent.cli.plan import step_changes, step_json
from waldur_site_agent.cli.start import (
    DONE,
    FAILED,
    Start,
    config_option,
    each_offering,
    load_or_exit,
    offering_option,
    output_option,
    runtime_of,
)
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.explanation import explain_name
from waldur_site_agent.model.standing import Detail, Effect, MemberStanding, Refusal
from waldur_site_agent.planning.explanation import (
    Explanation,
    MemberExplanation,
    ResourceExplanation,
    UserExplanation,
)
from waldur_site_agent.planning.plan import Call
from waldur_site_agent.service.journal import plain_write
from waldur_site_agent.service.session import MEMBERSHIP_SYNC, open_site

_COLUMN = 16
_SHOWN_MEMBERS = 12
_EFFECTS = {Effect.REFUSED: "refused", Effect.WAITS: "waits"}


@click.command("explain")
@click.argument("name")
@config_option
@offering_option
@output_option()
@click.option("--all-members", is_flag=True, help="Print every member of an account.")
def explain_command(
    name: str, config_file: Path, offerings: tuple[str, ...], output: str, all_members: bool
) -> None:
    """Explain a user, an account, a resource or an order; change nothing.

    NAME is a username, an account, the name or UUID of a resource, or the UUID of an order. Prints
    what Waldur wants and why, what the cluster and the operating system have, what the next cycle
    would do, and every reason why a job would be refused or wait, with the value that decides.

    Exit codes: 0 explained, 1 nothing of that name was found or a side could not be read,
    2 configuration error.
    """
    start = load_or_exit(config_file, wanted=offerings, jobs=[MEMBERSHIP_SYNC.job])
    found, code = explanations(start, name)
    if output == "json":
        say(json_text({each: explanation_json(e) for each, e in found.items()}))
    else:
        for offering, explanation in found.items():
            say("\n".join(explanation_lines(offering, explanation, all_members=all_members)))
    if not found and code == DONE:
        say(f"nothing is called {name}, in Waldur or in the backend", err=True)
    sys.exit(code if found else max(code, FAILED))


def explanations(start: Start, name: str) -> tuple[dict[str, Explanation], int]:
    """The explanations of the offerings that know the name, and the exit code."""
    runtime = runtime_of(start, dry_run=True)
    found: dict[str, Explanation] = {}

    def look(offering: Offering) -> int:
        with open_site(runtime, offering, MEMBERSHIP_SYNC, lambda: False) as site:
            explanation = explain_name(site, name)
        if not explanation.is_empty:
            found[offering.name] = explanation
        return DONE

    served = [o for o in start.offerings if o.backend_for(MEMBERSHIP_SYNC.job)]
    code = each_offering(start, look, offerings=served, titles=False, errors_below=False)
    return found, code


def explanation_lines(
    offering: str, explanation: Explanation, *, all_members: bool = False
) -> Iterator[str]:
    """An explanation as text."""
    for user in explanation.users:
        yield from _user_lines(offering, user)
    asked = [user.user for user in explanation.users]
    stopped = any(user.refusals for user in explanation.users)
    for resource in explanation.resources:
        yield from _resource_lines(
            offering, resource, asked, all_members=all_members, stopped=stopped
        )
    yield from _remedy_lines(explanation)
    for remark in explanation.remarks:
        yield on_one_line(f"! {remark}")


def _user_lines(offering: str, user: UserExplanation) -> Iterator[str]:
    yield on_one_line(f"{user.user}  user of {offering}")
    yield from _section("Waldur", user.waldur)
    yield from _section("On this side", user.backend)
    yield from _refusal_lines(user.user, user.refusals)


def _section(title: str, details: Iterable[Detail]) -> Iterator[str]:
    lines = [on_one_line(f"    {each.name:<{_COLUMN}} {each.value}") for each in details]
    if lines:
        yield f"  {title}"
        yield from lines


def _resource_lines(
    offering: str,
    resource: ResourceExplanation,
    asked: Sequence[str],
    *,
    all_members: bool,
    stopped: bool,
) -> Iterator[str]:
    yield on_one_line(f"{resource.title}  in {offering}")
    yield from _section("Waldur", resource.waldur)
    yield from _section("Backend", resource.backend)
    if resource.exists is False:
        yield "    ! the backend does not have it"
    yield from _member_lines(resource.members, all_members=all_members)
    yield from _plan_lines(resource)
    yield from _job_lines(resource, asked, stopped=stopped)


def _member_lines(members: Sequence[MemberExplanation], *, all_members: bool) -> Iterator[str]:
    if not members:
        return
    yield "  Members"
    ordered = sorted(members, key=lambda member: not member.is_odd)
    shown = ordered if all_members else ordered[:_SHOWN_MEMBERS]
    for member in shown:
        sign = "!" if member.is_odd else " "
        yield on_one_line(f"  {sign} {member.user:<{_COLUMN}} {_sides(member)}: {member.why}")
        for each in member.standing.details if member.standing is not None else ():
            if len(members) == 1:
                yield on_one_line(f"    {'':<{_COLUMN}} {each.name}: {each.value}")
    if len(ordered) > len(shown):
        yield f"    and {len(ordered) - len(shown)} more who are as they should be (--all-members)"


_SIDES = {True: "yes", False: "no", None: "?"}


def _sides(member: MemberExplanation) -> str:
    return f"wanted {_SIDES[member.wanted]}, there {_SIDES[member.is_in]}"


def _plan_lines(resource: ResourceExplanation) -> Iterator[str]:
    changes = [line for step in resource.steps for line in step_changes(step_json(step))]
    writes = [
        f"    w in Waldur       {text}  {write.reason}"
        for write in resource.writes
        if write.call is not Call.REFRESH_LAST_SYNC
        for text in (str(write),)
    ]
    if not changes and not writes and not resource.notes and not resource.refused:
        yield "  Nothing differs; the next cycle has nothing to do."
        return
    yield "  The next cycle of membership_sync would"
    for sign, subject, explanation in changes:
        yield on_one_line(f"    {sign} {subject:<{_COLUMN - 2}} {explanation}")
    yield from map(on_one_line, writes)
    yield from (on_one_line(f"    ! {note}") for note in resource.notes)
    if resource.refused:
        yield on_one_line(f"    ! refuse {len(resource.refused)} of it: {resource.refused_reason}")


def _job_lines(
    resource: ResourceExplanation, asked: Sequence[str], *, stopped: bool
) -> Iterator[str]:
    """Why jobs would be refused, or that nothing is known to stop them."""
    if resource.exists is None:
        return
    yield from _refusal_lines("everybody", resource.refusals)
    stopped = stopped or bool(resource.refusals)
    for member in resource.members:
        own = (member.standing or MemberStanding()).refusals
        if own and (member.wanted is not False or member.user in asked):
            yield from _refusal_lines(member.user, own)
            stopped = True
    if not stopped:
        yield "  Jobs: no known rule refuses them or makes them wait."


def _refusal_lines(whose: str, found: Sequence[Refusal]) -> Iterator[str]:
    if found:
        yield on_one_line(f"  Jobs of {whose}")
    for each in found:
        jobs = f" (jobs {each.jobs})" if each.jobs else ""
        answer = f"  [{each.answer}]" if each.answer else ""
        text = f"{_EFFECTS[each.effect]:<{_COLUMN}} {each.rule}: {each.value}{jobs}{answer}"
        yield on_one_line(f"    {text}")


def _remedy_lines(explanation: Explanation) -> Iterator[str]:
    remedies = dict.fromkeys(r.remedy for _, r in explanation.refusals() if r.remedy)
    if remedies:
        yield "If this is not intended, an administrator can run"
        yield from (on_one_line(f"    {remedy}") for remedy in remedies)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON values."""
    return {
        "users": [
            {
                "user": user.user,
                "waldur": _details(user.waldur),
                "backend": _details(user.backend),
                "refusals": [_refusal(each) for each in user.refusals],
            }
            for user in explanation.users
        ],
        "resources": [_resource_json(resource) for resource in explanation.resources],
        "remarks": list(explanation.remarks),
    }


def _resource_json(resource: ResourceExplanation) -> dict[str, Any]:
    return {
        "account": resource.account,
        "title": resource.title,
        "exists": resource.exists,
        "waldur": _details(resource.waldur),
        "backend": _details(resource.backend),
        "members": [
            {
                "user": member.user,
                "wanted": member.wanted,
                "there": member.is_in,
                "why": member.why,
                "details": _details(member.standing.details if member.standing else ()),
                "refusals": [
                    _refusal(e) for e in (member.standing.refusals if member.standing else ())
                ],
            }
            for member in resource.members
        ],
        "refusals": [_refusal(each) for each in resource.refusals],
        "next_cycle": {
            "steps": [step_json(step) for step in resource.steps],
            "refused": [step_json(step) for step in resource.refused],
            "refusal": resource.refused_reason,
            "waldur": [plain_write(write) for write in resource.writes],
            "notes": list(resource.notes),
        },
    }


def _details(details: Iterable[Detail]) -> list[dict[str, str]]:
    return [{"name": each.name, "value": each.value} for each in details]


def _refusal(refusal: Refusal) -> dict[str, str]:
    return {
        "rule": refusal.rule,
        "value": refusal.value,
        "effect": refusal.effect.value,
        "jobs": refusal.jobs,
        "answer": refusal.answer,
        "remedy": refusal.remedy,
    }
