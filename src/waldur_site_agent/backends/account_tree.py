"""The tree of accounts that a command-line backend keeps: customers, projects, resources. Pure.

A container or a resource is ours if it carries the organization that its placement says; whatever
else has the name belongs to somebody else and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from waldur_site_agent.backends.naming import Naming, plain_text
from waldur_site_agent.model.backend import Container, ContainerKind, Placement, ResourceRequest
from waldur_site_agent.model.errors import PermanentError

_DESCRIPTION_BYTES = 200


@dataclass(frozen=True, slots=True)
class Shape:
    """Which accounts stand above those of resources, and below which account they begin."""

    top: str
    """The account below which the outermost one is made."""
    top_key: str = "default_account"
    """The key of ``backend_settings`` that names it."""
    kinds: tuple[ContainerKind, ...] = ("customer", "project")
    """Outermost first; without any, resources are made directly below ``top``."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """The accounts that are the site's own, each with the key that names it."""
    customer_prefix: str = ""
    """What the names of customers' accounts begin with."""
    project_prefix: str = ""
    """What the names of projects' accounts begin with."""

    def is_of_the_other_kind(self, container: Container, above: str) -> bool:
        """Whether an account may be a customer's though a project's was looked for, or reversed.

        Both have their own name as their organization, so their place tells them apart; with
        prefixes that differ, their names do. Without ``customer_prefix``, an account above that of
        a customer is an administrator's.
        """
        if "customer" not in self.kinds:
            return False
        customers, projects = self.customer_prefix.lower(), self.project_prefix.lower()
        if container.kind == "project":
            return above == self.top and container.id.startswith(customers)
        is_below_a_customer = bool(customers) and above.startswith(customers) and above != self.top
        return is_below_a_customer and container.id.startswith(projects)


class TreeSettings(Protocol):
    """What ``backend_settings`` say about the tree."""

    @property
    def customer_prefix(self) -> str:
        """Customers' accounts are named this + slug."""
        ...

    @property
    def project_prefix(self) -> str:
        """Projects' accounts are named this + slug."""
        ...

    @property
    def allocation_prefix(self) -> str:
        """Resources' accounts are named this + slug."""
        ...

    @property
    def shape(self) -> Shape:
        """The accounts above those of resources."""
        ...


@dataclass(frozen=True, slots=True)
class AccountTree:
    """How the accounts of one backend are named, described and told from those of others."""

    naming: Naming
    account: str = "account"
    """What an account is called in messages: ``Slurm account``."""
    project_organization: Literal["customer", "project"] = "project"
    """Whose name a project's account has as its organization."""
    dropped: str = ""
    """What a description must not begin with, because a command would take it for an option."""
    needs_description: bool = False
    """Whether the account's name stands in for an empty description."""

    def description(self, text: str, name: str = "") -> str:
        """Return free text without what commands alter on its way in or break on its way out."""
        plain = plain_text(text, _DESCRIPTION_BYTES)
        plain = plain.lstrip(self.dropped) if self.dropped else plain
        return plain or (name if self.needs_description else "")

    def place(self, request: ResourceRequest, slug: str, settings: TreeSettings) -> Placement:
        """Name a resource and the accounts above it.

        Raises:
            PermanentError: a slug is missing or cannot be a name, or two accounts get one name.
        """
        prefixes = {
            "customer": settings.customer_prefix,
            "project": settings.project_prefix,
            "allocation": settings.allocation_prefix,
        }
        slugs = {
            "customer": request.customer_slug,
            "project": request.project_slug,
            "allocation": slug,
        }
        shape = settings.shape
        names = {
            kind: self.naming.prefixed(kind, prefixes[kind], slugs[kind])
            for kind in slugs
            if kind != "customer" or kind in shape.kinds
        }
        accounts = {k: name for k, name in names.items() if k in (*shape.kinds, "allocation")}
        _refuse_same(accounts, prefixes, shape.kept)
        containers: list[Container] = []
        for kind in shape.kinds:
            title = request.customer_name if kind == "customer" else request.project_name
            organization = kind if kind == "customer" else self.project_organization
            containers.append(
                Container(
                    kind=kind,
                    id=names[kind],
                    parent=containers[-1].id if containers else shape.top,
                    title=self.description(title, names[kind]),
                    organization=names.get(organization, names[kind]),
                )
            )
        return Placement(
            id=names["allocation"],
            title=self.description(request.resource_name, names["allocation"]),
            parent=containers[-1].id if containers else shape.top,
            organization=names["project"],
            containers=tuple(containers),
        )

    def check_names(self, placement: Placement) -> None:
        """Raise unless every account of a placement can be named to a command.

        Raises:
            PermanentError: one of them cannot.
        """
        for kind, name in placement.names():
            self.naming.account(name, f"{kind} account")

    def refuse_foreign(self, placement: Placement, name: str, organization: str) -> None:
        """Raise unless an account that has the resource's name is what an interrupted run made.

        Raises:
            PermanentError: its organization differs: it belongs to somebody else.
        """
        if organization != placement.organization:
            raise PermanentError(
                f'{placement.id}: cannot create: {self.account} "{name}" exists with organization '
                f'"{organization}", not "{placement.organization}"; rename it or set another '
                "allocation_prefix"
            )

    def refuse_foreign_container(
        self, resource: str, container: Container, organization: str
    ) -> None:
        """Raise unless an account that has a container's name was made by the agent.

        Raises:
            PermanentError: its organization differs.
        """
        if organization != container.organization:
            raise PermanentError(
                f'{resource}: cannot create: the {container.kind} account "{container.id}" '
                f'exists with organization "{organization}", not "{container.organization}", so it '
                f"was not made by this agent; rename it or set another {container.kind}_prefix"
            )

    def refuse_other_kind(
        self, resource: str, container: Container, above: str, shape: Shape
    ) -> None:
        """Raise if an account that has a project's name may be that of a customer, or reversed.

        Raises:
            PermanentError: it is where accounts of the other kind are.
        """
        if shape.is_of_the_other_kind(container, above):
            other = "customer" if container.kind == "project" else "project"
            raise PermanentError(
                f'{resource}: cannot create: the {container.kind} account "{container.id}" is '
                f'under "{above}", not under "{container.parent}", so it may be that of a {other} '
                f"with the same slug; set customer_prefix and project_prefix to different values, "
                f"change the slug of the {container.kind}, or put the account there by hand"
            )


def refuse_kept(name: str, kept: Mapping[str, str]) -> None:
    """Raise when an account must stay because everything else is below it.

    ``kept`` has the site's own accounts, each with the key of ``backend_settings`` that names it.

    Raises:
        PermanentError: it is one of them.
    """
    if name in kept:
        raise PermanentError(
            f"{name}: not deleted: it is the {kept[name]} of backend_settings, below which other "
            "accounts are made; whoever asked for this meant another account"
        )


def _refuse_same(
    names: Mapping[str, str], prefixes: Mapping[str, str], kept: Mapping[str, str]
) -> None:
    taken: dict[str, str] = {}
    for kind, name in names.items():
        if name in kept:
            raise PermanentError(
                f'the {kind} account would be "{name}", which is the {kept[name]}; '
                f"set another {kind}_prefix"
            )
        other = taken.setdefault(name, kind)
        if other != kind:
            raise PermanentError(
                f'the {other} account and the {kind} account would both be "{name}"; set '
                f'{other}_prefix ("{prefixes[other]}") and {kind}_prefix ("{prefixes[kind]}") to '
                "different values"
            )
