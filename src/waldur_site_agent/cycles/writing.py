"""Sends planned writes to Waldur; each leaves one line in the log and the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import DefectError, SiteAgentError
from waldur_site_agent.planning.writes import Call

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from uuid import UUID

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.planning.writes import Write
    from waldur_site_agent.waldur import Waldur


def send_write(site: Site, write: Write) -> None:
    """Make the change in Waldur.

    Raises:
        SiteAgentError: Waldur refused it, or did not answer.
    """
    try:
        _send(site.waldur, write)
    except SiteAgentError as error:
        site.record_write(write, error)
        raise
    note_write(site, write)


def note_write(site: Site, write: Write) -> None:
    """Log and record a change that was made."""
    log = site.log.debug if write.call is Call.REFRESH_LAST_SYNC else site.log.info
    log(
        "told Waldur",
        call=write.call.value,
        resource=write.about,
        changes=[str(change) for change in write.changes],
        reason=write.reason,
    )
    site.record_write(write, None)


def _send(waldur: Waldur, write: Write) -> None:
    uuid, value = write.uuid, write.value
    bare: dict[Call, Callable[[UUID], object]] = {
        Call.APPROVE_ORDER: waldur.approve_order,
        Call.COMPLETE_ORDER: waldur.complete_order,
        Call.SET_AS_OK: waldur.set_as_ok,
        Call.REFRESH_LAST_SYNC: waldur.refresh_last_sync,
        Call.SET_DELETING: waldur.set_deleting,
        Call.SET_DELETED: waldur.set_deleted,
        Call.START_IMPORT: waldur.start_import,
    }
    with_value: dict[Call, Callable[[UUID, Any], object]] = {
        Call.FAIL_ORDER: waldur.fail_order,
        Call.SET_BACKEND_ID: waldur.set_backend_id,
        Call.SET_BACKEND_METADATA: waldur.set_backend_metadata,
        Call.SET_LIMITS: waldur.set_limits,
        Call.SET_AS_ERRED: waldur.set_as_erred,
    }
    if uuid is not None and write.call is Call.CLOSE_IMPORT:
        if value is None:
            waldur.import_done(uuid)
        else:
            waldur.import_erred(uuid, str(value))
    elif uuid is not None and write.call in bare:
        bare[write.call](uuid)
    elif uuid is not None and write.call in with_value:
        with_value[write.call](uuid, value)
    else:
        raise DefectError(f"{write.about}: {write.call.value} is not sent here")
