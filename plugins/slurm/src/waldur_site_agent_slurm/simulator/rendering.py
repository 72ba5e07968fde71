"""The account tree for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator.limits import printed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent_slurm.simulator.state import SimAccount, SimState


def render_tree(state: SimState) -> str:
    """Draw the accounts with their descriptions, limits and members, one line each."""
    return "\n".join([_line(state, state.accounts["root"]), *_below(state, "root", "")])


def _below(state: SimState, name: str, indent: str) -> Iterator[str]:
    children = state.children(name)
    for child in children:
        is_last = child is children[-1]
        yield f"{indent}{'└─ ' if is_last else '├─ '}{_line(state, child)}"
        yield from _below(state, child.name, f"{indent}{'   ' if is_last else '│  '}")


def _line(state: SimState, account: SimAccount) -> str:
    parts = [account.name]
    if account.description not in ("", account.name):
        parts.append(f'"{account.description}"')
    if account.limits:
        parts.append(f"GrpTRESMins {printed(account.limits)}")
    if account.qos and account.name != "root":
        parts.append(f"QOS {','.join(account.qos)}")
    if account.members and account.name != "root":
        parts.append(f"members: {', '.join(sorted(account.members))}")
    jobs = sum(1 for job in state.jobs.values() if job.account == account.name)
    if jobs:
        parts.append(f"jobs: {jobs}")
    return "  ".join(parts)
