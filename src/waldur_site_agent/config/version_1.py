"""The keys of version 1 (up to 1.0.8) in the file and in an offering, and what became of each.

Those of ``backend_settings`` are with the settings of each backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from waldur_site_agent.config.switching import (
    Answer,
    OldDefault,
    OldKey,
    OldKeys,
    done,
    not_needed,
    table,
)

_OTHER_PLUGINS = "handed to plugins of version 1; neither Slurm nor MOAB reads it"

_FILE: Mapping[str, OldKey] = {
    "offerings": done(),
    "sentry_dsn": done(
        "reports name no people or projects unless `sentry_send_names: true`", differs=True
    ),
    "elastic_apm_server_url": not_needed(
        "nothing is sent to Elastic APM; errors are in the log, the metrics and, if configured, "
        "Sentry"
    ),
    "timezone": done(
        "the zone in which months are cut, in sacct too, whatever the zone of the machine; without "
        "it the machine's zone, in version 1 UTC"
    ),
    "global_proxy": done("for brokers behind an https proxy, too; `mqtt_enabled` does not use it"),
    "log_level": done("at most `error`", values={"critical": "error"}),
    "reporting_periods": not_needed(
        "the current month is reported, and the previous one until it is closed; for older months: "
        "waldur-site-agent usage load"
    ),
    "api_key_final_report_days": not_needed("no backend has API keys that are billed"),
    "expose_backend_error_details": not_needed(
        "Waldur is sent the reason of a failure in words, never a traceback"
    ),
    "log_shipping": done(
        "in every mode, each offering's lines to its own Waldur; without names unless "
        "`send_names: true`; what cannot be sent now is kept as far as the buffer holds it",
        differs=True,
    ),
}

_OFFERING: Mapping[str, OldKey] = {
    "name": done(),
    "waldur_api_url": done(),
    "waldur_api_token": done("or `${VARIABLE}`, or `waldur_api_token_file`"),
    "waldur_offering_uuid": done(),
    "oidc_token_url": done("used where there is no `waldur_api_token`, as before"),
    "oidc_client_id": done(),
    "oidc_client_secret": done("or `${VARIABLE}`, or `oidc_client_secret_file`"),
    "backend_type": done(
        "stands for the next three keys if none of them is given; version 1 then did nothing"
    ),
    "order_processing_backend": done(),
    "membership_sync_backend": done(),
    "reporting_backend": done(),
    "username_management_backend": done("a name that is not installed is an error"),
    "backend_settings": done("unknown keys and bad values are errors; see below"),
    "backend_components": done(),
    "verify_ssl": done("also of the broker's certificate"),
    "stomp_enabled": done(),
    "mqtt_enabled": done(
        "events over MQTT, and the polling modes skip the offering; version 1.0 ignored the key",
        differs=True,
    ),
    "stomp_membership_sync_enabled": not_needed(
        "event_process serves the members of the offerings that it serves; where stomp_enabled is "
        "false, membership_sync does"
    ),
    "stomp_ws_host": done(),
    "stomp_ws_port": done("443 with TLS, otherwise 80"),
    "stomp_ws_path": done(),
    "websocket_use_tls": done(),
    "resource_import_enabled": done(),
    "username_reconciliation_enabled": not_needed(
        "only the backend for another Waldur did anything with it"
    ),
    "preserve_unmanaged_backend_users": done(
        "without it, `safety.unknown_users` decides, which leaves users whom Waldur does not know; "
        "version 1 removed them"
    ),
    "omit_anomalous_usage_components": not_needed(
        "a component that would fall is held back by itself, as with true"
    ),
}

_COMPONENT: Mapping[str, OldKey] = {
    "measured_unit": done(),
    "label": done(),
    "accounting_type": done(
        "`one` is prepaid: the account gets the limit for all months, which version 1 cut to one "
        "month in the first pass; `one` with `is_prepaid: false` has no limit"
    ),
    "unit_factor": done(),
    "unit_factor_reporting": done(
        "with every backend; version 1 ignored it with Slurm and MOAB, so their usage changes; "
        "remove it to keep that",
        differs=True,
    ),
    "limit": done(
        "caps new accounts for `usage` only; without it Waldur keeps its amount, which version 1 "
        "cleared",
    ),
    "description": done(),
    "article_code": done(),
    "min_value": done(),
    "max_value": done(),
    "max_available_limit": done(),
    "default_limit": done(),
    "limit_period": done("another value is an error at once"),
    "is_boolean": done(),
    "is_prepaid": done("with `one` true is sent unless the file says false, as in version 1"),
    "min_prepaid_duration": done(),
    "max_prepaid_duration": done(),
    "prepaid_duration_step": done(),
    "min_renewal_duration": done(),
    "max_renewal_duration": done(),
    "renewal_duration_step": done(),
    "target_components": done(
        "of usage the largest share counts, where version 1 added up the targets; other components "
        "keep their `unit_factor`, without which version 1 set their limits: with `limits: waldur` "
        "the accounts get what was sold; a target of two components is an error",
        differs=True,
    ),
    "backend_name": done(_OTHER_PLUGINS),
    "enforce_limits": done(_OTHER_PLUGINS),
    "type": done(_OTHER_PLUGINS),
    "mup_allocation_type": done(_OTHER_PLUGINS),
}

BACKEND_TYPE_NOT_NEEDED = not_needed("not needed beside the keys that name a backend for each job")
"""For ``migrate``."""

OFFERING = "offerings.*"
COMPONENT = f"{OFFERING}.backend_components.*"
KEYS: Mapping[str, OldKey] = {
    **_FILE,
    **{f"{OFFERING}.{key}": row for key, row in _OFFERING.items()},
    **{f"{COMPONENT}.{key}": row for key, row in _COMPONENT.items()},
}
"""Every key of version 1 outside ``backend_settings``."""

DEFAULTS_OF_FILE = (
    OldDefault(
        key="timezone",
        text="billing months are cut in the machine's time zone, in version 1 in UTC",
        line="timezone: UTC",
    ),
)
DEFAULTS_OF_OFFERING = (
    OldDefault(
        key="preserve_unmanaged_backend_users",
        text="users of an account whom Waldur does not know stay and are listed; version 1 "
        "removed them",
        line="preserve_unmanaged_backend_users: false",
    ),
)

_PREFIX = "WALDUR_SITE_AGENT_"
HEARTBEAT_VARIABLE = f"{_PREFIX}HEARTBEAT_PATH"
ENVIRONMENT: Mapping[str, OldKey] = {
    f"{_PREFIX}ORDER_PROCESS_PERIOD_MINUTES": done("fractions are allowed"),
    f"{_PREFIX}REPORT_PERIOD_MINUTES": done("fractions are allowed"),
    f"{_PREFIX}MEMBERSHIP_SYNC_PERIOD_MINUTES": done("fractions are allowed"),
    f"{_PREFIX}RECONCILIATION_PERIOD_MINUTES": not_needed(
        "events.full_pass_minutes of the file says how often event_process runs a full cycle"
    ),
    f"{_PREFIX}RESOURCE_STATUS_RECONCILIATION_MINUTES": not_needed(
        "every full cycle restores paused and downscaled; see events.full_pass_minutes"
    ),
    f"{_PREFIX}STOMP_UNHEALTHY_AFTER_MINUTES": not_needed(
        "a lost connection to the broker is made again, and shows in health and metrics"
    ),
    f"{_PREFIX}STOMP_HANDLER_STUCK_AFTER_MINUTES": not_needed(
        "stuck_after_minutes of the file says when a cycle counts as stuck"
    ),
    HEARTBEAT_VARIABLE: done("the health file, in JSON, where the file has no `health_file`"),
    "SENTRY_ENVIRONMENT": done("without it `production`"),
}
"""The environment variables of version 1."""


def variables_without_effect(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables of version 1 that are set and not needed any more, each with the reason."""
    for name, row in ENVIRONMENT.items():
        if environ.get(name) and row.answer is Answer.NOT_NEEDED:
            yield name, row.text


def tables(of_backends: Mapping[str, OldKeys]) -> str:
    """What became of every key, as tables in Markdown.

    Args:
        of_backends: the rows of ``backend_settings``, by the name of the backend.
    """
    sections: list[tuple[str, OldKeys]] = [
        ("The file", _FILE),
        ("An entry of offerings", _OFFERING),
        ("An entry of backend_components", _COMPONENT),
        *((f"backend_settings of {name}", rows) for name, rows in of_backends.items() if rows),
        ("Environment variables", ENVIRONMENT),
    ]
    return "\n\n".join("\n".join([f"### {title}", "", *table(rows)]) for title, rows in sections)
