"""An embedded Waldur for the demo, for tests and for trying a configuration."""

from __future__ import annotations

from waldur_site_agent_sandbox.faults import Fault
from waldur_site_agent_sandbox.http import RefusedError
from waldur_site_agent_sandbox.records import (
    AgentIdentity,
    AgentProcessor,
    AgentService,
    BackendResource,
    BackendResourceRequest,
    Component,
    ComponentUsage,
    Customer,
    EventConsumer,
    EventSubscription,
    Offering,
    OfferingUser,
    Order,
    PeriodicPolicy,
    Plan,
    Project,
    ProjectAccount,
    Resource,
    Role,
    SubscriptionQueue,
    Task,
    User,
    UserLimit,
    UserUsage,
)
from waldur_site_agent_sandbox.sandbox import DemoWorld, Sandbox
from waldur_site_agent_sandbox.store import Request

__all__ = [
    "AgentIdentity",
    "AgentProcessor",
    "AgentService",
    "BackendResource",
    "BackendResourceRequest",
    "Component",
    "ComponentUsage",
    "Customer",
    "DemoWorld",
    "EventConsumer",
    "EventSubscription",
    "Fault",
    "Offering",
    "OfferingUser",
    "Order",
    "PeriodicPolicy",
    "Plan",
    "Project",
    "ProjectAccount",
    "RefusedError",
    "Request",
    "Resource",
    "Role",
    "Sandbox",
    "SubscriptionQueue",
    "Task",
    "User",
    "UserLimit",
    "UserUsage",
]
