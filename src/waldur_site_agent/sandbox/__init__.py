"""An embedded Waldur for the demo, for tests and for trying a configuration."""

from waldur_site_agent.sandbox import extra  # noqa: F401 - before what needs the extra
from waldur_site_agent.sandbox.answers import RefusedError
from waldur_site_agent.sandbox.demo import DemoWorld
from waldur_site_agent.sandbox.faults import Fault
from waldur_site_agent.sandbox.journal import Request
from waldur_site_agent.sandbox.records import (
    Component,
    Customer,
    Offering,
    OfferingUser,
    Order,
    PeriodicPolicy,
    Project,
    ProjectAccount,
    Resource,
    Role,
    Task,
    User,
    UserLimit,
)
from waldur_site_agent.sandbox.records_agents import (
    AgentIdentity,
    AgentProcessor,
    AgentService,
    EventConsumer,
    EventSubscription,
    SubscriptionQueue,
)
from waldur_site_agent.sandbox.records_imports import BackendResource, BackendResourceRequest
from waldur_site_agent.sandbox.records_usage import ComponentUsage, UserUsage
from waldur_site_agent.sandbox.sandbox import Sandbox

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
