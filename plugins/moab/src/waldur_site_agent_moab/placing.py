"""Where a resource stands among the accounts. Pure.

The accounting manager has no tree: an account's organization is the name of the account above it,
and a customer's account is its own organization.
"""

from __future__ import annotations

from waldur_site_agent.backends import PermanentError
from waldur_site_agent.model.backend import Container, Placement, ResourceRequest
from waldur_site_agent_moab.names import description, prefixed_name
from waldur_site_agent_moab.settings import MoabSettings


def place(request: ResourceRequest, slug: str, settings: MoabSettings) -> Placement:
    """Name a resource and the accounts above it.

    Raises:
        PermanentError: a slug is missing or cannot be a name, or two accounts get the same name.
    """
    customer = prefixed_name("customer", settings.customer_prefix, request.customer_slug)
    project = prefixed_name("project", settings.project_prefix, request.project_slug)
    allocation = prefixed_name("allocation", settings.allocation_prefix, slug)
    _refuse_same({"customer": customer, "project": project, "allocation": allocation}, settings)
    return Placement(
        id=allocation,
        title=description(request.resource_name, allocation),
        parent=project,
        organization=project,
        containers=(
            Container(
                kind="customer",
                id=customer,
                parent=settings.default_account,
                title=description(request.customer_name, customer),
                organization=customer,
            ),
            Container(
                kind="project",
                id=project,
                parent=customer,
                title=description(request.project_name, project),
                organization=customer,
            ),
        ),
    )


def _refuse_same(names: dict[str, str], settings: MoabSettings) -> None:
    taken = {settings.default_account: "default"}
    for kind, name in names.items():
        other = taken.setdefault(name, kind)
        if other == "default":
            raise PermanentError(
                f'the {kind} account would be "{name}", which is the default_account; '
                f"set another {kind}_prefix"
            )
        if other != kind:
            raise PermanentError(
                f'the {other} account and the {kind} account would both be "{name}"; set '
                f"{other}_prefix and {kind}_prefix to different values"
            )
