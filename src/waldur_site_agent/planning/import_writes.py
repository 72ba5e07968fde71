"""What Waldur is told about requests for importable resources, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.model.imports import ImportState
from waldur_site_agent.planning.writes import Call, Change, Write, amount_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from waldur_site_agent.model.imports import BackendResourceRequest
    from waldur_site_agent.model.offerings import Component
    from waldur_site_agent.planning.importing import Offer


def start_write(request: BackendResourceRequest) -> Write:
    """Take a request in hand."""
    return _state(request, Call.START_IMPORT, request.state, ImportState.PROCESSING)


def done_write(request: BackendResourceRequest) -> Write:
    """Mark a request as answered."""
    return _state(request, Call.CLOSE_IMPORT, ImportState.PROCESSING, ImportState.DONE)


def erred_import_write(request: BackendResourceRequest, message: str) -> Write:
    """Mark a request as erred, with the reason for the one who asked."""
    before = ImportState.PROCESSING
    return _state(request, Call.CLOSE_IMPORT, before, ImportState.ERRED, message)


def offer_write(offer: Offer, components: Mapping[str, Component]) -> Write:
    """Show Waldur an account that may be imported."""
    return Write(
        call=Call.CREATE_BACKEND_RESOURCE,
        uuid=None,
        about=offer.account,
        changes=tuple(_offer_changes(offer, components)),
        reason="no resource has this account",
        value=metadata_offered(offer),
    )


def metadata_offered(offer: Offer) -> dict[str, object]:
    """What Waldur is told of an account besides its name and project."""
    limits = {name: float(amount) for name, amount in offer.limits.items()}
    return {**offer.metadata, "limits": limits}


def _offer_changes(offer: Offer, components: Mapping[str, Component]) -> Iterator[Change]:
    yield Change("importable in project", None, offer.project.slug)
    for name, amount in sorted(offer.limits.items()):
        unit = components[name].measured_unit if name in components else ""
        yield Change(f"limit {name}", None, amount_text(amount), unit)
    for name, text in sorted(offer.metadata.items()):
        yield Change(f"metadata {name}", None, text)


def _state(
    request: BackendResourceRequest, call: Call, old: str, new: str, message: str = ""
) -> Write:
    return Write(
        call=call,
        uuid=request.uuid,
        about=f"import request {request.uuid}",
        changes=(Change("state", old, new),),
        reason=message or "asked for importable resources",
        value=message or None,
    )
