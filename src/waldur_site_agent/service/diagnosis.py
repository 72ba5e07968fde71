"""Looks at everything an offering needs, without changing anything, and says how it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.backends import Check, Verdict, failed_check
from waldur_site_agent.config import ConfigurationError, Job
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.orders import OrderState
from waldur_site_agent.planning.components import component_differences, plan_components
from waldur_site_agent.planning.offering_access import SERVED_TYPES
from waldur_site_agent.service.machine_checks import clock_check
from waldur_site_agent.service.sessions import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent.backends.registry import Registry
    from waldur_site_agent.config import Offering, Source
    from waldur_site_agent.model.offerings import WaldurOffering
    from waldur_site_agent.model.people import User
    from waldur_site_agent.waldur import Waldur

_SHORT_LIFETIME_SECONDS = 86400
_NOT_CHECKED = "the checks after it were not made"


def diagnose_waldur(offering: Offering) -> Iterator[Check]:
    """Server, token, rights, offering, components and open orders; never raises."""
    yield from never_raising("Waldur", _waldur_checks(offering))


def _waldur_checks(offering: Offering) -> Iterator[Check]:
    with connect(offering, "diagnostics") as waldur:
        version = waldur.server_version()
        detail = f"runs version {version}" if version else "answers"
        yield _passed("Waldur", f"{waldur.base_url} {detail}")
        yield clock_check(waldur.clock_ahead_seconds())
        user = waldur.whoami()
        yield _token(user)
        found = waldur.offering(offering.waldur_offering_uuid)
        yield from _offering(found)
        yield _rights(user, found)
        yield from _components(offering, found)
        yield _orders(offering, waldur)


def diagnose_backends(offering: Offering, source: Source, registry: Registry) -> Iterator[Check]:
    """Every backend that the offering names, each asked once; never raises."""
    names = sorted({name for job in Job if (name := offering.backend_for(job))})
    if not names:
        yield Check(
            name="backend",
            verdict=Verdict.WARNING,
            detail="no backend is named, so no job runs for this offering",
            remedy=f"set {', '.join(job.value for job in Job)} as needed",
        )
    number = source.offering_number(offering.name)
    for name in names:
        checks = _backend_checks(name, offering, source, registry, number)
        yield from never_raising(f"backend {name}", checks)


def _backend_checks(
    name: str, offering: Offering, source: Source, registry: Registry, number: int
) -> Iterator[Check]:
    settings = registry.settings(name, offering, source, number)
    backend = registry.open(name, settings, offering)
    try:
        yield from backend.diagnose()
    finally:
        backend.close()


def never_raising(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """The checks; what cuts them short becomes the last of them."""
    try:
        yield from checks
    except SiteAgentError as error:
        yield failed_check(name, error, f"{error.problem}; {_NOT_CHECKED}")
    except ConfigurationError as error:
        yield Check(name=name, verdict=Verdict.FAILED, detail=f"{error}; {_NOT_CHECKED}")
    except Exception as error:  # a plugin may fail in any way; the other checks are still made
        log = structlog.get_logger()
        log.exception("a check failed because of a defect", check=name)
        yield Check(
            name=name,
            verdict=Verdict.FAILED,
            detail=f"a defect in the agent or a plugin: {type(error).__name__}: {error}; "
            f"{_NOT_CHECKED}",
            remedy="report it with the traceback above",
        )


def _passed(name: str, detail: str) -> Check:
    return Check(name=name, verdict=Verdict.OK, detail=detail)


def _token(user: User) -> Check:
    name = user.username or user.full_name or str(user.uuid)
    if user.token_lifetime is None:
        return _passed("token", f'belongs to "{name}" and does not expire')
    short = user.token_lifetime < _SHORT_LIFETIME_SECONDS
    return Check(
        name="token",
        verdict=Verdict.WARNING if short else Verdict.OK,
        detail=f'belongs to "{name}" and expires after {user.token_lifetime} s without a request',
        remedy="set the token lifetime of this user to none in Waldur" if short else "",
    )


def _offering(found: WaldurOffering) -> Iterator[Check]:
    known = found.type in SERVED_TYPES
    yield Check(
        name="offering",
        verdict=Verdict.OK if known else Verdict.FAILED,
        detail=f'"{found.name}" of {found.customer_name or "?"}, {found.type}, {found.state}',
        remedy="" if known else f"the agent serves offerings of type {' or '.join(SERVED_TYPES)}",
    )
    if not found.plugin_options.get("service_provider_can_create_offering_user"):
        yield Check(
            name="offering users",
            verdict=Verdict.WARNING,
            detail="service_provider_can_create_offering_user is off, or not shown to this token",
            remedy="switch it on in the offering's integration options, or no member is ever added",
        )


def _rights(user: User, found: WaldurOffering) -> Check:
    if user.is_staff:
        return _passed("rights", "staff: may do everything")
    on_customer = [p.role_name for p in user.permissions if p.scope_uuid == found.customer_uuid]
    on_offering = [p.role_name for p in user.permissions if p.scope_uuid == found.uuid]
    if on_customer:
        roles = ", ".join(on_customer)
        return _passed("rights", f'{roles} of the provider "{found.customer_name}"')
    remedy = f'give the user a role with ORDER.APPROVE at "{found.customer_name}"'
    if on_offering:
        return Check(
            name="rights",
            verdict=Verdict.WARNING,
            detail=f"{', '.join(on_offering)} of the offering only: orders cannot be approved, and "
            "older servers refuse other calls too",
            remedy=remedy,
        )
    return Check(
        name="rights",
        verdict=Verdict.FAILED,
        detail="the user has no role at the provider or on the offering",
        remedy=remedy,
    )


def _components(offering: Offering, found: WaldurOffering) -> Iterator[Check]:
    plan = plan_components(offering.components, found.components)
    by_type = {component.type: component for component in found.components}
    load = "run waldur_site_load_components"
    for component in plan.create:
        yield Check(
            name=f"component {component.type}",
            verdict=Verdict.FAILED,
            detail="is configured but Waldur does not have it",
            remedy=load,
        )
    for component in plan.update:
        yield Check(
            name=f"component {component.type}",
            verdict=Verdict.WARNING,
            detail="; ".join(component_differences(component, by_type[component.type])),
            remedy=load,
        )
    for name in plan.unchanged:
        yield _passed(f"component {name}", "as configured")
    for name in plan.only_in_waldur:
        yield Check(
            name=f"component {name}",
            verdict=Verdict.WARNING,
            detail="is in Waldur but not configured; the agent does not serve it",
            remedy="add it to backend_components, or archive it in Waldur",
        )


def _orders(offering: Offering, waldur: Waldur) -> Check:
    states = (OrderState.PENDING_PROVIDER, OrderState.EXECUTING)
    orders = waldur.orders(offering.waldur_offering_uuid, states).items
    pending = sum(order.state == OrderState.PENDING_PROVIDER for order in orders)
    detail = f"{pending} pending approval, {len(orders) - pending} executing"
    return _passed("orders", detail)
