"""Reports bugs to Sentry if the site has set ``sentry_dsn``, with only what helps to fix them.

A report is built from an allow-list: exception types, code locations, the constant text of the log
line, mode, offering and versions. Local variables, process arguments, the environment, requests and
the host name are never included. Exception messages quote names of accounts and people: they are
left out unless ``sentry_send_names`` is set, and known secrets are masked even then.

Imported on demand: the library takes longer to import than the rest of the agent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.threading import ThreadingIntegration
from sentry_sdk.transport import Transport
from sentry_sdk.utils import BadDsn

from waldur_site_agent import __version__
from waldur_site_agent.service.logs import concealed
from waldur_site_agent.waldur.address import unusable_proxy

WITHHELD = "(left out; the agent's log has it)"
_FLUSH_WITHIN_SECONDS = 2.0
_KEPT = ("event_id", "timestamp", "platform", "level", "release", "environment", "tags", "sdk")
_KEPT_OF_A_FRAME = ("filename", "function", "module", "lineno", "in_app")
_TAGS = ("offering", "mode")


class ErrorReports:
    """The connection to Sentry, for the lifetime of the process or until it is set up again."""

    def __init__(
        self,
        dsn: str,
        *,
        send_names: bool,
        environ: Mapping[str, str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        """Set up the library for the whole process; an empty ``dsn`` disables it.

        ``transport`` replaces the network in tests.
        """
        environ = os.environ if environ is None else environ
        self._send_names = send_names
        try:
            sentry_sdk.init(
                dsn=dsn,
                transport=transport,
                release=f"waldur-site-agent@{__version__}",
                environment=environ.get("SENTRY_ENVIRONMENT") or "production",
                before_send=lambda event, _hint: self._harmless(event),
                default_integrations=False,
                auto_enabling_integrations=False,
                integrations=_integrations(),
                max_breadcrumbs=0,
                auto_session_tracking=False,
                send_client_reports=False,
                include_local_variables=False,
                include_source_context=False,
                server_name="",
            )
        except BadDsn as error:
            structlog.get_logger().error(
                "error reporting disabled: invalid sentry_dsn", reason=concealed(str(error))
            )
        except ValueError as error:  # the library also reads the proxy variables of the environment
            reason = str(unusable_proxy(error, environ))
            structlog.get_logger().error("error reporting disabled", reason=concealed(reason))

    def defect(self, error: BaseException, event: Mapping[str, Any]) -> None:
        """Report an exception; ``event`` is the log line that it was logged with."""
        with sentry_sdk.new_scope() as scope:
            for name in _TAGS:
                if name in event:
                    scope.set_tag(name, str(event[name]))
            # texts of libraries and plugins are not constant: they name people and accounts
            is_constant = "library" not in event or self._send_names
            scope.set_tag("said", str(event.get("event", "")) if is_constant else WITHHELD)
            scope.capture_exception(error)

    def flush(self) -> None:
        """Flush pending events, bounded by the shutdown timeout."""
        sentry_sdk.flush(timeout=_FLUSH_WITHIN_SECONDS)

    def _harmless(self, event: Any) -> Any:
        """The parts of a report that may leave the site."""
        kept = {name: event[name] for name in _KEPT if name in event}
        kept["tags"] = {name: concealed(text) for name, text in event.get("tags", {}).items()}
        values = event.get("exception", {}).get("values", [])
        kept["exception"] = {"values": [self._exception(value) for value in values]}
        return kept

    def _exception(self, value: Mapping[str, Any]) -> dict[str, Any]:
        frames = (value.get("stacktrace") or {}).get("frames", [])
        text = concealed(str(value.get("value", ""))) if self._send_names else WITHHELD
        return {
            "type": value.get("type"),
            "module": value.get("module"),
            "value": text,
            "stacktrace": {
                "frames": [{name: f.get(name) for name in _KEPT_OF_A_FRAME} for f in frames]
            },
        }


def _integrations() -> list[Integration]:
    """The library's own hooks that are used: uncaught exceptions of threads and of the process."""
    return [ExcepthookIntegration(), ThreadingIntegration(propagate_scope=False)]
