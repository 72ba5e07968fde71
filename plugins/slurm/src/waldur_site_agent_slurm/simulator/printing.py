"""The reports that sacctmgr prints about its changes, column by column as 22.05 does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator.limits import printed
from waldur_site_agent_slurm.simulator.request import lowered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from waldur_site_agent_slurm.simulator.state import SimAccount, SimJob, SimState

_WIDTH = 10


def added_accounts(
    state: SimState,
    said: Mapping[str, str],
    parent: str,
    missing: Sequence[str],
    fresh: Sequence[str],
    limits: Mapping[str, int],
) -> str:
    """The report of ``add account``."""
    lines: list[str] = []
    if fresh:
        description = lowered(said.get("description", "Account Name"))
        organization = lowered(said.get("organization", "Parent/Account Name"))
        if "description" not in said:
            description = "Account Name"
        if "organization" not in said:
            organization = "Parent/Account Name"
        lines += [" Adding Account(s)", *(f"  {name}" for name in fresh), " Settings"]
        lines += [f"  Description     = {description}", f"  Organization    = {organization}"]
    lines.append(" Associations")
    lines += [f"  A = {name[:_WIDTH]:<10} C = {state.cluster[:_WIDTH]:<10}" for name in missing]
    if limits or "parent" in said:
        lines.append(" Settings")
    if limits:
        lines.append(f"  GrpTRESMins   = {printed(limits)}")
    if "parent" in said:
        lines.append(f"  Parent        = {parent}")
    return _text(lines)


def added_users(
    state: SimState,
    said: Mapping[str, str],
    default: str,
    fresh: Sequence[str],
    added: Sequence[tuple[str, str]],
) -> str:
    """The report of ``add user``."""
    lines: list[str] = []
    if fresh:
        lines += [" Adding User(s)", *(f"  {name}" for name in fresh)]
        settings = [f"  Default Account = {default}"] if default else []
        if "adminlevel" in said:
            settings.append(f"  Admin Level     = {said['adminlevel'].capitalize()}")
        lines += [" Settings =", *settings] if settings else []
    lines.append(" Associations =")
    partition = f" P = {said['partition']:<10}" if said.get("partition") else ""
    where = f"C = {state.cluster[:_WIDTH]:<10}{partition}"
    lines += [f"  U = {user:<9} A = {account:<10} {where}" for user, account in added]
    lines.append(" Non Default Settings")
    if "maxsubmitjobs" in said:
        lines.append(f"  MaxSubmitJobs = {said['maxsubmitjobs']}")
    return _text(lines)


def account_of(state: SimState, account: SimAccount) -> str:
    """An account's association in a report."""
    return f"  C = {state.cluster:<10} A = {account.name:<10} of {account.parent:<10}".rstrip()


def member_of(state: SimState, account: str, user: str, partition: str = "") -> str:
    """A user's association in a report."""
    of_partition = f" P = {partition}" if partition else ""
    return f"  C = {state.cluster:<10} A = {account:<10} U = {user:<9}{of_partition}"


def active_jobs(state: SimState, jobs: Sequence[SimJob]) -> str:
    """The refusal to remove what jobs are using."""
    lines = [" Error with request: Job(s) active, cancel job(s) before remove"]
    for job in jobs:
        where = f"C = {state.cluster:<10} A = {job.account:<10} U = {job.user:<9}"
        lines.append(f"  JobID = {job.id:<10} {where}")
    return _text(lines)


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
