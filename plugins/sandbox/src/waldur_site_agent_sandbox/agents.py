"""The life of an agent's services: alive by their heartbeat, idle without it."""

from __future__ import annotations

from datetime import timedelta

from waldur_site_agent_sandbox.records import AgentProcessor, AgentService
from waldur_site_agent_sandbox.store import Transaction

SILENCE_UNTIL_IDLE = timedelta(minutes=10)

AGENT_TYPES = frozenset(
    {
        "Marketplace.Slurm",
        "Marketplace.SiteAgent",
        "Marketplace.Script",
        "Marketplace.Basic",
        "OpenStack.Tenant",
    }
)
"""Types of offerings that may have agents."""


def processors_of(tx: Transaction, service: AgentService) -> list[AgentProcessor]:
    """Give what does a service's job."""
    return [row for row in tx.world.agent_processors.values() if row.service == service.uuid]


def state_of(tx: Transaction, service: AgentService) -> str:
    """Give a service's state at this moment.

    Idle is one whose newest processor ran more than ten minutes ago, and it stays so until the
    service is registered again: another run alone does not wake it.
    """
    runs = [row.last_run for row in processors_of(tx, service)]
    silent = bool(runs) and tx.now - max(*runs, service.registered) > SILENCE_UNTIL_IDLE
    return "Idle" if silent and service.state == "Active" else service.state
