"""Answers Waldur's requests for importable resources: accounts that belong to no resource."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from waldur_site_agent.cycles.changes import note_write, send_write
from waldur_site_agent.cycles.claims import ended_namesakes, namesakes, recently_named
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent.cycles.offering import read_offering
from waldur_site_agent.cycles.partial_answers import (
    UNAVAILABLE,
    call_optional,
    is_unavailable,
    readable,
    remember_denied,
    stand_ins,
)
from waldur_site_agent.cycles.site import WHOLE_OFFERING, CycleReport, ScopeFilter, Site
from waldur_site_agent.model.backend import ResourceRequest, Scope
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import (
    BackendResourceRequest,
    ImportState,
    Project,
    Resource,
)
from waldur_site_agent.planning.importing import (
    CLAIMED,
    ImportPlan,
    Offer,
    ProjectPlace,
    done_write,
    erred_import_write,
    metadata_offered,
    offer_write,
    plan_import,
    start_write,
)
from waldur_site_agent.planning.plan import Write
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    concurrently,
)

_OPEN = (ImportState.SENT, ImportState.PROCESSING)
_REQUESTS = "backend_resource_requests"
_STEM = "x"
_LISTS_CATCH_UP = timedelta(minutes=10)
_SHOWN_FAILURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport(CycleReport):
    """The outcome of answering import requests."""

    plan: ImportPlan = field(default_factory=ImportPlan)
    answered: int = 0
    failures: tuple[str, ...] = ()

    @property
    def has_failures(self) -> bool:
        """Whether some request or account needs a retry."""
        return bool(self.failures)


def sync_membership_and_imports(site: Site, *, dry_run: bool = False) -> MembershipReport:
    """Sync all memberships; answer import requests too, if imports are enabled.

    Raises:
        TemporaryError: Waldur or the backend could not be read; nothing was changed.
    """
    report = sync_membership(site, dry_run=dry_run)
    if not site.offering.resource_import_enabled:
        return report
    if dry_run:
        return _with_import_preview(site, report)
    try:
        imports = answer_imports(site)
    except SiteAgentError as error:
        return replace(report, failures=(*report.failures, f"imports: {error}"))
    return replace(report, failures=(*report.failures, *imports.failures))


def _with_import_preview(site: Site, report: MembershipReport) -> MembershipReport:
    try:
        writes = preview_imports(site)
    except SiteAgentError as error:
        return replace(report, failures=(*report.failures, f"imports: {error}"))
    return replace(report, writes=(*report.writes, *writes))


def preview_imports(site: Site) -> tuple[Write, ...]:
    """What :func:`answer_imports` would write; nothing is sent.

    Raises:
        TemporaryError: Waldur or the backend could not be read.
    """
    requests = [request for request in _open_requests(site) if _is_still_open(site, request)]
    if not requests:
        return ()
    begun = [start_write(each) for each in requests if each.state == ImportState.SENT]
    try:
        offers = importable(site).offers
    except PermanentError as error:
        return (*begun, *(erred_import_write(request, str(error)) for request in requests))
    shown = [offer_write(offer, site.offering.components) for offer in offers]
    return (*begun, *shown, *map(done_write, requests))


def _is_still_open(site: Site, request: BackendResourceRequest) -> bool:
    """Whether a request is open; one listed as Processing is read again, as it may have ended."""
    if request.state != ImportState.PROCESSING:
        return True
    return site.waldur.backend_resource_request(request.uuid).state == ImportState.PROCESSING


def answer_imports(site: Site, *, scopes: Collection[Scope] = WHOLE_OFFERING) -> ImportReport:
    """Answer every open request, or those in scope.

    A request that an interrupted run left in Processing is resumed. A request is marked Erred only
    for permanent errors; a temporary error leaves it open.

    Raises:
        TemporaryError: Waldur or the backend could not be read, or an offer could not be sent.
    """
    scope_filter = ScopeFilter.of(scopes)
    report = ImportReport(offering=site.offering.name)
    requests = (
        _open_requests(site) if scope_filter.everything else _requests(site, scope_filter.imports)
    )
    started = [request for request in requests if _start(site, request)]
    if not started:
        return report
    try:
        plan = importable(site)
        refused = _offer_all(site, plan.offers)
    except PermanentError as error:
        return replace(report, failures=_conclude(site, started, [str(error)]))
    site.log.info("accounts offered for import", offered=len(plan.offers) - len(refused))
    for reason, number in plan.skipped.items():
        site.log.info("accounts not offered for import", accounts=number, because=f"they {reason}")
    failures = _conclude(site, started, refused)
    return replace(report, plan=plan, answered=len(started), failures=failures)


def importable(site: Site) -> ImportPlan:
    """The accounts that would be offered for import now; nothing is sent.

    Raises:
        TemporaryError: Waldur or the backend could not be read.
        PermanentError: the token may not read what is needed.
    """
    if not site.backend.capabilities.tells_all:
        raise PermanentError(
            "this offering's backend cannot list what exists, so nothing can be imported; set the "
            "backend_id of resources in Waldur by hand"
        )
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid)
    if any(row.text("backend_id") is None for row in listing.unreadable):
        listing.require_complete("resources")  # raises: any account may belong to such a row
    resources = (*readable(site, listing, "resources"), *stand_ins(listing.unreadable))
    offered = site.waldur.backend_resources(uuid).require_complete("backend resources")
    resources = (*resources, *recently_named(site, resources))
    places = [place for project in _projects(site) if (place := _place(site, project))]
    plan = plan_import(
        site.backend.observe(),
        places,
        {resource.account for resource in resources if resource.account},
        {one.account for one in offered} | _offered_lately(site),
        site.offering.components,
    )
    return _without_claims_elsewhere(site, plan)


def _open_requests(site: Site) -> Sequence[BackendResourceRequest]:
    """Unanswered requests; none if the server does not support them."""
    if is_unavailable(site, _REQUESTS):
        return ()
    uuid = site.offering.waldur_offering_uuid
    try:
        return call_optional(
            site,
            _REQUESTS,
            lambda: site.waldur.backend_resource_requests(uuid, _OPEN),
            "resource_import_enabled has no effect",
        ).items
    except AbsentOperationError:
        return ()
    except AccessDeniedError as error:
        remember_denied(site, _REQUESTS, error)
    return ()


def _requests(site: Site, uuids: Iterable[UUID]) -> list[BackendResourceRequest]:
    found = []
    for uuid in sorted(uuids):
        try:
            request = site.waldur.backend_resource_request(uuid)
        except NotFoundError as error:  # may not be visible yet
            raise TemporaryError(f"request {uuid} for importable resources: {error}") from error
        if request.offering_uuid in (None, site.offering.waldur_offering_uuid):
            found.append(request)
    return [request for request in found if request.state in _OPEN]


def _start(site: Site, request: BackendResourceRequest) -> bool:
    """Start answering a request; return whether it is in progress."""
    if request.state == ImportState.PROCESSING:
        return _is_still_open(site, request)
    try:
        send_write(site, start_write(request))
    except ConflictError:  # started by somebody else, or by this call with a lost response
        current = site.waldur.backend_resource_request(request.uuid)
        return current.state == ImportState.PROCESSING
    return True


def _projects(site: Site) -> tuple[Project, ...]:
    """The projects of the provider's customers or, if they are hidden, all visible projects."""
    offering = read_offering(site)
    if offering.customer_uuid is not None:
        try:
            for provider in site.waldur.service_providers(offering.customer_uuid).items[:1]:
                return site.waldur.provider_projects(provider.uuid).require_complete("projects")
        except (*UNAVAILABLE, NotFoundError) as error:
            site.log.info(
                "cannot list the provider's projects; using all visible projects", reason=str(error)
            )
    return site.waldur.projects().require_complete("projects")


def _place(site: Site, project: Project) -> ProjectPlace | None:
    """The place of the project's accounts; ``None`` if no account name can be derived."""
    request = ResourceRequest.of_project(project)
    if request.lacks_slug_of:
        return None
    try:
        placement = site.backend.place(request, _STEM)
    except PermanentError:
        return None
    if not placement.containers and not (placement.parent and placement.organization):
        return None  # neither an account nor an organization tells the project
    return ProjectPlace(
        project=project,
        account=placement.parent,
        organization="" if placement.containers else placement.organization,
        containers=frozenset(container.id for container in placement.containers),
        prefix=placement.id.removesuffix(_STEM),
    )


def _without_claims_elsewhere(site: Site, plan: ImportPlan) -> ImportPlan:
    """Omit accounts of resources of other offerings, which may share the cluster.

    Where deleted accounts are kept, those of terminated resources are kept to be restored.
    """
    free, taken = [], 0
    keeps_deleted = site.backend.capabilities.keeps_deleted

    def owners(offer: Offer) -> tuple[Resource, ...]:
        found = namesakes(site, offer.account)
        return found or (ended_namesakes(site, offer.account) if keeps_deleted else ())

    for attempt in concurrently(owners, plan.offers):
        if attempt.error is not None:
            raise TemporaryError(
                f'the owner of account "{attempt.item.account}" could not be read: {attempt.error}'
            ) from attempt.error
        if attempt.value:
            taken += 1
        else:
            free.append(attempt.item)
    skipped = dict(plan.skipped)
    if taken:
        skipped[CLAIMED] = skipped.get(CLAIMED, 0) + taken
    return ImportPlan(offers=tuple(free), skipped=skipped)


def _offer_all(site: Site, offers: Sequence[Offer]) -> list[str]:
    """Send the offers; return what Waldur rejected permanently."""
    refused = []
    for attempt in concurrently(lambda offer: _offer(site, offer), offers):
        if isinstance(attempt.error, TemporaryError):
            raise attempt.error
        if attempt.error is not None:
            refused.append(f'"{attempt.item.account}": {attempt.error}')
    return refused


def _offer(site: Site, offer: Offer) -> None:
    write = offer_write(offer, site.offering.components)
    uuid = site.offering.waldur_offering_uuid
    metadata = metadata_offered(offer)
    try:
        site.waldur.create_backend_resource(
            offer.account, offer.project.uuid, uuid, offer.account, metadata
        )
    except SiteAgentError as error:
        site.journal.record_write(write, error)
        raise
    note_write(site, write)
    site.memory.offered_accounts[offer.account] = site.now()


def _offered_lately(site: Site) -> set[str]:
    """The accounts that this process offered recently; lists may not show them yet."""
    since = site.now() - _LISTS_CATCH_UP
    return {account for account, when in site.memory.offered_accounts.items() if when > since}


def _conclude(
    site: Site, requests: Sequence[BackendResourceRequest], troubles: Sequence[str]
) -> tuple[str, ...]:
    """Mark the requests as Done or Erred; return what went wrong."""
    reason = "; ".join(troubles[:_SHOWN_FAILURES])
    if len(troubles) > _SHOWN_FAILURES:
        reason += f"; and {len(troubles) - _SHOWN_FAILURES} more"
    failures = list(troubles)
    for request in requests:
        try:
            if troubles:  # Waldur accepts this in any state
                current = site.waldur.backend_resource_request(request.uuid)
                if current.state in _OPEN:
                    send_write(site, erred_import_write(current, reason))
            else:
                send_write(site, done_write(request))
        except ConflictError as error:
            failures += _unless_ended(site, request, error)
    return tuple(failures)


def _unless_ended(
    site: Site, request: BackendResourceRequest, error: ConflictError
) -> tuple[str, ...]:
    current = site.waldur.backend_resource_request(request.uuid)
    return () if current.state not in _OPEN else (f"request {request.uuid}: {error}",)
