"""Compares the offering's components with the configuration, and explains missing access."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.model.marketplace import Component, User, WaldurComponent, WaldurOffering


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPlan:
    """Components to create or update in Waldur, and those that are not configured."""

    create: tuple[WaldurComponent, ...] = ()
    update: tuple[WaldurComponent, ...] = ()
    unchanged: tuple[str, ...] = ()
    only_in_waldur: tuple[str, ...] = ()
    """Left unchanged, because removing a component removes its history."""


def plan_components(
    configured: Mapping[str, Component], found: Iterable[WaldurComponent]
) -> ComponentPlan:
    """Compare by component type; fields that are not configured are left unchanged."""
    by_type = {component.type: component for component in found}
    create, update, unchanged = [], [], []
    for name, component in configured.items():
        existing = by_type.get(name)
        if existing is None:
            create.append(_wanted(component, WaldurComponent(type=name)))
            continue
        wanted = _wanted(component, existing)
        if wanted == existing:
            unchanged.append(name)
        else:
            update.append(wanted)
    return ComponentPlan(
        create=tuple(create),
        update=tuple(update),
        unchanged=tuple(unchanged),
        only_in_waldur=tuple(sorted(by_type.keys() - configured.keys())),
    )


def _wanted(component: Component, existing: WaldurComponent) -> WaldurComponent:
    """``existing`` with all configured fields."""
    prepaid = {"is_prepaid": True} if component.is_prepaid else {}
    wanted = replace(
        existing,
        name=component.label,
        measured_unit=component.measured_unit,
        billing_type=component.accounting_type,
        **{**prepaid, **component.details},
    )
    factor = component.unit_factor
    if factor == factor.to_integral_value():  # Waldur shows it to people, and has whole ones only
        wanted = replace(wanted, unit_factor=factor)
    if component.limit is None:
        return wanted
    return replace(wanted, limit_amount=component.limit)


def component_differences(wanted: WaldurComponent, existing: WaldurComponent) -> list[str]:
    """The differences between two versions of a component, as ``field: old -> new``."""
    return [
        f"{field}: {_shown(getattr(existing, field))} -> {_shown(getattr(wanted, field))}"
        for field in _COMPARED
        if getattr(existing, field) != getattr(wanted, field)
    ]


_COMPARED = tuple(
    field.name for field in fields(WaldurComponent) if field.name not in {"type", "uuid"}
)


def _shown(value: object) -> str:
    match value:
        case None | "":
            return "none"
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return f"{value.normalize():f}"
        case str():
            return f'"{value}"' if " " in value else value
        case _:
            return str(value)


SERVED_TYPES = ("Marketplace.Slurm", "Marketplace.SiteAgent")
"""The types of offering that an agent can serve."""


def roles_at(user: User, offering: WaldurOffering) -> tuple[list[str], list[str]]:
    """The user's roles at the organization that sells the offering, and those on the offering."""
    at_provider = [
        permission.role_name
        for permission in user.permissions
        if permission.scope_uuid and permission.scope_uuid == offering.customer_uuid
    ]
    on_offering = [p.role_name for p in user.permissions if p.scope_uuid == offering.uuid]
    return at_provider, on_offering


def access_problem(user: User, offering: WaldurOffering, login_key: str) -> str:
    """Why the offering cannot be served with this token; empty if it can.

    ``login_key`` is the configuration key that decides who the user is.
    """
    if offering.type and offering.type not in SERVED_TYPES:
        return (
            f'waldur_offering_uuid: offering "{offering.name}" is of type "{offering.type}", and '
            f"the agent serves {' and '.join(SERVED_TYPES)} only; set the UUID of such an offering"
        )
    if user.is_staff or any(roles_at(user, offering)):
        return ""
    provider = offering.customer_name or "its provider"
    return (
        f'{login_key}: user "{name_of(user)}" has no role on offering "{offering.name}" or '
        f'at "{provider}", so Waldur shows empty lists; give the user the role CUSTOMER.OWNER at '
        f'"{provider}", or set the token of a user who has it'
    )


def hidden_problem(user: User, offering_uuid: UUID, login_key: str) -> str:
    """Why the user cannot see the offering."""
    who = f'user "{name_of(user)}" of {login_key}'
    if not user.is_staff and not user.permissions:
        return (
            f"offering {offering_uuid} is not visible to {who}, who has no role at all: give the "
            "user the role CUSTOMER.OWNER at the provider, or set the token of a user who has it; "
            "also check waldur_offering_uuid"
        )
    return (
        f"waldur_offering_uuid: offering {offering_uuid} does not exist in this Waldur or is not "
        f"visible to {who} ({_roles(user)}); correct the UUID, or set the token of a user with a "
        "role at the offering's provider"
    )


def name_of(user: User) -> str:
    """A readable name of the user."""
    return user.username or user.full_name or str(user.uuid)


def _roles(user: User) -> str:
    if user.is_staff:
        return "staff"
    named = [f'{p.role_name} of "{p.scope_name or p.scope_uuid}"' for p in user.permissions]
    shown, more = named[:3], len(named) - 3
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
