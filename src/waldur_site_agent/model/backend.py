"""What backends are told of resources, and where resources are placed in the backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, TypeAlias
from uuid import UUID

from waldur_site_agent.model.marketplace import OfferingUser, Order, Project, Resource, TeamMember

ContainerKind: TypeAlias = Literal["customer", "project"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """What a backend needs to know in order to name and place a resource."""

    resource_name: str
    project_slug: str
    project_name: str
    customer_slug: str
    customer_name: str
    uuid: UUID | None = None
    """The resource in Waldur."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the customer filled in when ordering."""

    @classmethod
    def of(cls, resource: Resource, order: Order | None = None) -> ResourceRequest:
        """The request for a resource; what its order says takes precedence."""
        said = order or resource
        return cls(
            resource_name=resource.name or (order.resource_name if order else ""),
            project_slug=said.project_slug or resource.project_slug,
            project_name=said.project_name or resource.project_name,
            customer_slug=said.customer_slug or resource.customer_slug,
            customer_name=said.customer_name or resource.customer_name,
            uuid=resource.uuid,
            attributes={**resource.attributes, **said.attributes},
        )

    @classmethod
    def of_project(cls, project: Project) -> ResourceRequest:
        """The request for any resource of a project, to find out where its accounts are."""
        return cls(
            resource_name=project.name,
            project_slug=project.slug,
            project_name=project.name,
            customer_slug=project.customer_slug,
            customer_name=project.customer_name,
        )

    @property
    def lacks_slug_of(self) -> str:
        """``customer`` or ``project``, if no account can be named after it; otherwise empty."""
        slugs = {"customer": self.customer_slug, "project": self.project_slug}
        return next((kind for kind, slug in slugs.items() if not slug.strip()), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceFacts:
    """What Waldur says about a resource, for backends that need more than its name and limits."""

    uuid: UUID
    backend_id: str = ""
    """As Waldur has it, in its capitals."""
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the customer filled in when ordering, and those of the order that is carried out."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The options that the customer may change later, as that order asks for them."""
    renewed_until: date | None = None
    """The end date that the order asks for, if it is a renewal."""
    plugin_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Options that the provider gave the offering."""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The resource as Waldur's API describes it; empty unless the backend needs facts."""

    @property
    def account(self) -> str:
        """``backend_id`` as names are compared everywhere: in lower case."""
        return self.backend_id.strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What Waldur says about the resources and people of an offering, as far as it was read."""

    resources: tuple[ResourceFacts, ...] = ()
    users: tuple[OfferingUser, ...] = field(default=(), repr=False)
    """The people with an account at the offering."""
    teams: Mapping[UUID, tuple[TeamMember, ...]] = field(default_factory=dict, repr=False)
    """By project, or by resource where Waldur shows no project."""
    provider: UUID | None = None
    """The service provider, if this token may see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An account of a customer or of a project: it holds others and is made when missing."""

    kind: ContainerKind
    id: str
    parent: str
    """The account above; empty where there is none."""
    title: str
    organization: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The name, the parents and the texts of one resource in the backend.

    ``parent`` and ``organization`` are also the evidence by which a resource that an interrupted
    run made is distinguished from one that belongs to somebody else.
    """

    id: str
    title: str
    parent: str
    organization: str
    containers: tuple[Container, ...] = ()
    """Outermost first; the last one is ``parent``, without any that is an account of the site."""

    def names(self) -> Iterator[tuple[str, str]]:
        """Every account of the placement as (kind, name), outermost first."""
        for container in self.containers:
            yield container.kind, container.id
        yield "allocation", self.id

    @property
    def project_container(self) -> str | None:
        """The project's account above the resource, where there is one."""
        innermost = self.containers[-1] if self.containers else None
        return innermost.id if innermost is not None and innermost.kind == "project" else None


@dataclass(frozen=True, slots=True)
class Everything:
    """The whole offering: what the polling modes look at."""


@dataclass(frozen=True, slots=True)
class OrderScope:
    """One order."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """One resource: its members, limits and access."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class ProjectScope:
    """One project: the members of all its resources, its service and course accounts."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class UserScope:
    """One person as a user of the offering, by the UUID of the Waldur user."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class ImportScope:
    """One request to list the accounts that belong to no resource."""

    uuid: UUID


Scope: TypeAlias = Everything | OrderScope | ResourceScope | ProjectScope | UserScope | ImportScope
