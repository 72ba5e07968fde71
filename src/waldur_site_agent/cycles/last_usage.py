"""What a resource used since the last report, told before its termination is complete.

Waldur takes no usage of a terminated resource, so what ran after the last periodic report would
never be billed. The order stays open until this has been said; what Waldur or the backend refuses
for good does not hold it up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import DeleteResource
from waldur_site_agent.config import Job
from waldur_site_agent.cycles.reporting import plan_months, reported_components
from waldur_site_agent.cycles.usage_sending import send_month
from waldur_site_agent.cycles.usage_subjects import accounts_elsewhere, shared_account
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.orders import OrderType, ResourceState
from waldur_site_agent.model.usage import BillingMonth

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from uuid import UUID

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.cycles.usage_report import NotReported
    from waldur_site_agent.model.errors import SiteAgentError
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.orders import OrderPlan

_TAKES_USAGE = (ResourceState.OK, ResourceState.UPDATING, ResourceState.TERMINATING)


def report_last_usage(
    site: Site, plans: Iterable[OrderPlan], state: BackendState, failed: Collection[UUID]
) -> dict[UUID, SiteAgentError]:
    """Report the resources whose termination is about to be marked done.

    Only where the backend that carries out orders also reports usage: the work of a backend that
    this pass has not opened is left to the ``report`` mode.

    Args:
        site: the offering at work.
        plans: what was planned and carried out.
        state: the backend before that.
        failed: orders that went wrong and are not about to be marked done.

    Returns:
        By order, why it has to wait: its usage could not be told yet.
    """
    reporting = site.offering.backend_for(Job.REPORT)
    if not reporting or reporting != site.offering.backend_for(Job.ORDERS):
        return {}
    ending: dict[str, OrderPlan] = {}
    for plan in plans:
        if plan.order.uuid in failed or not _is_ending(plan, state):
            continue
        resource = plan.hand.resource
        if resource.state in _TAKES_USAGE:
            ending[resource.account] = plan
        elif resource.state == ResourceState.ERRED:
            _warn_of_erred(site, resource)
    if not ending:
        return {}
    try:
        failures = _report(site, {name: plan.hand.resource for name, plan in ending.items()})
    except TemporaryError as error:
        return {plan.order.uuid: _waits(name, error) for name, plan in ending.items()}
    except PermanentError as error:
        site.log.error("last usage not reported", resources=sorted(ending), reason=str(error))
        return {}
    return {
        ending[failure.account].order.uuid: _waits(failure.account, failure.error)
        for failure in failures
        if isinstance(failure.error, TemporaryError)  # the others are in the log
    }


def _is_ending(plan: OrderPlan, state: BackendState) -> bool:
    """Whether the resource's own account is gone, or is being deleted."""
    resource = plan.hand.resource
    if plan.order.type != OrderType.TERMINATE or plan.problem or plan.unfinished:
        return False
    if not resource.account:
        return False
    deleted = any(isinstance(step.action, DeleteResource) for step in plan.steps)
    return deleted or resource.account not in state.resources


def _warn_of_erred(site: Site, resource: Resource) -> None:
    site.log.warning(
        "a resource that is Erred is terminated: Waldur takes no usage of it, so what its account "
        "used since the last report is not billed",
        resource=resource.account,
        name=resource.name,
        uuid=str(resource.uuid),
    )


def _report(site: Site, resources: Mapping[str, Resource]) -> list[NotReported]:
    """Report this month, and the month before as far as Waldur still takes it.

    Raises:
        TemporaryError: one side could not be read.
        PermanentError: the backend cannot report usage, or the token may not read it.
    """
    month = BillingMonth.of(site.now(), site.zone)
    components = reported_components(site)
    resources = _unshared(site, resources)
    failures: list[NotReported] = []
    for plan in plan_months(site, (month.previous, month), resources, components):
        outcome = send_month(site, plan, compare_parts=True)
        failures += outcome.failures
        if plan and (outcome.waits or outcome.refusal):
            site.log.warning(
                "the last usage of terminated resources was not taken",
                month=str(plan.month),
                resources=sorted(r.account for r in plan.resources if r.is_news),
                reason=outcome.waits or outcome.refusal,
            )
    return failures


def _unshared(site: Site, resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """Those whose account no sibling offering has, too; usage of a shared one is nobody's.

    Raises:
        TemporaryError: a sibling's resources could not be read.
    """
    elsewhere = accounts_elsewhere(site)
    for account in sorted(resources.keys() & elsewhere.keys()):
        names = [resources[account].name, *elsewhere[account]]
        site.log.error("last usage not reported", reason=shared_account(account, names))
    return {a: resource for a, resource in resources.items() if a not in elsewhere}


def _waits(account: str, error: SiteAgentError) -> TemporaryError:
    return TemporaryError(
        f"{account}: not terminated yet, its last usage was not reported: {error}"
    )
