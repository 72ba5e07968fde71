"""An embedded Waldur for the demo, for tests and for trying a configuration."""

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
from waldur_site_agent.sandbox.records_usage import ComponentUsage, UserUsage
from waldur_site_agent.sandbox.sandbox import Sandbox

__all__ = [
    "Component",
    "ComponentUsage",
    "Customer",
    "DemoWorld",
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
    "Task",
    "User",
    "UserLimit",
    "UserUsage",
]
