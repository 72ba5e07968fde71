"""Worlds to begin with: the least that an agent needs, and one to show."""

from __future__ import annotations

from dataclasses import dataclass

from waldur_site_agent_sandbox.customer import CustomerSide
from waldur_site_agent_sandbox.records import Customer, Offering, Order, Project, User

AGENT_USERNAME = "site-agent"
"""What the user is called in Waldur whose token the agent has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSite:
    """The selling side: who it is, what it sells, and the user whose token the agent has."""

    provider: Customer
    offering: Offering
    agent: User


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWorld:
    """Two projects of one organization with five people, and an order of each project."""

    customer: Customer
    climate: Project
    physics: Project
    people: tuple[User, ...]
    orders: tuple[Order, ...]


def open_site(customer: CustomerSide, token_lifetime: int | None = None) -> ProviderSite:
    """Make a provider with an offering of type Marketplace.Slurm and a user for the agent."""
    provider = customer.add_customer("Example Computing Centre")
    offering = customer.add_offering("Example Cluster", provider)
    customer.add_component("cpu", "limit", "k-Hours", offering, "CPU", unit_factor=60000)
    customer.add_component("mem", "limit", "GB-hours", offering, "RAM", unit_factor=61440)
    agent = customer.add_user(AGENT_USERNAME, "Site Agent", token_lifetime=token_lifetime)
    customer.add_customer_role(provider, agent)
    return ProviderSite(provider=provider, offering=customer.current(offering), agent=agent)


def fill(customer: CustomerSide) -> DemoWorld:
    """Make the demo: a GPU component, an organization, two projects, five people, two orders."""
    customer.add_component("gres/gpu", "usage", "GPU-hours", name="GPU", unit_factor=60)
    university = customer.add_customer("University of Example", "uni")
    climate = customer.add_project("Climate model", university, "climate")
    physics = customer.add_project("Plasma physics", university, "physics")
    names = {
        "ada": "Ada Lovelace",
        "grace": "Grace Hopper",
        "alan": "Alan Turing",
        "emmy": "Emmy Noether",
        "lise": "Lise Meitner",
    }
    people = tuple(
        customer.add_user(username, full_name, f"{username}@example.org")
        for username, full_name in names.items()
    )
    for person in people:
        customer.set_account(person)
    for person in people[:3]:
        customer.add_member(climate, person, "admin" if person is people[0] else "member")
    for person in people[2:]:
        customer.add_member(physics, person, "admin" if person is people[-1] else "member")
    orders = (
        customer.place_create_order(climate, "Ocean runs", {"cpu": 600, "mem": 2000}),
        customer.place_create_order(physics, "Tokamak edge", {"cpu": 120, "mem": 480}),
    )
    return DemoWorld(
        customer=university, climate=climate, physics=physics, people=people, orders=orders
    )
