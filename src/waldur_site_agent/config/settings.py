"""The configuration file as typed values; every key of the reference, and nothing else."""

from __future__ import annotations

import enum
import importlib.util
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from waldur_site_agent.config.database_url import DatabaseUrl
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.settings import Section


class Job(enum.Enum):
    """What a backend does for an offering; each has a key of its own in the file."""

    ORDERS = "order_processing_backend"
    MEMBERSHIP = "membership_sync_backend"
    REPORT = "reporting_backend"


def _empty_is_off(value: Any) -> Any:
    return "" if value is None else value


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(
            "expected a URL such as https://waldur.example.com/api/; a port is 1 to 65535"
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("expected a URL such as https://waldur.example.com/api/")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("a URL without user, password, query or fragment is expected")
    return text


def _time_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError("expected an IANA time zone such as UTC or Europe/Tallinn") from None
    return text


_HIGHEST_PORT = 65535
FALSE_WORDS = ("false", "f", "no", "n", "off", "0")


def _listen_address(text: str) -> str:
    if text.startswith("unix:/"):
        return text
    found = re.fullmatch(r"\S*:(\d{1,5})", text)
    if text and (found is None or int(found[1]) > _HIGHEST_PORT):
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:9100, or unix:/PATH")
    return text


_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_PROXY_EXAMPLE = (
    "expected a URL such as http://proxy.example.com:3128; the scheme is http, https, socks5 or "
    "socks5h, and special characters in a password are percent-encoded"
)
_SOCKS = 'a SOCKS proxy needs more packages: pip install "waldur-site-agent[socks]"'


def _proxy_url(secret: SecretStr) -> SecretStr:
    """Check a proxy; messages never show it, because it may contain a password."""
    text = secret.get_secret_value()
    if not text:
        return secret
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(_PROXY_EXAMPLE) from None
    if parts.scheme not in _PROXY_SCHEMES or not parts.hostname or port == 0:
        raise ValueError(_PROXY_EXAMPLE)
    if parts.path not in ("", "/") or parts.query or parts.fragment or not text.isprintable():
        raise ValueError(_PROXY_EXAMPLE)
    packages = ("socksio", "python_socks") if parts.scheme.startswith("socks") else ()
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise ValueError(_SOCKS)
    return secret


def _coordination_url(secret: SecretStr) -> SecretStr:
    """Check the URL of a database; messages never show it, because it contains a password."""
    if text := secret.get_secret_value():
        missing = DatabaseUrl.parse(text).missing_extra
        if missing:
            raise ValueError(
                f'the driver is not installed: pip install "waldur-site-agent[{missing}]"'
            )
    return secret


def _token_url(text: str) -> str:
    if not text:
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(_ENDPOINT_EXAMPLE) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(_ENDPOINT_EXAMPLE)
    if parts.username or parts.password or parts.fragment:
        raise ValueError("a URL without user, password or fragment is expected")
    return text


_ENDPOINT_EXAMPLE = (
    "expected the token endpoint of the identity provider, such as "
    "https://sso.example.com/realms/hpc/protocol/openid-connect/token"
)
Port = Annotated[int, Field(ge=1, le=_HIGHEST_PORT)]
OptionalText = Annotated[str, BeforeValidator(_empty_is_off)]


Months = Annotated[int | None, Field(ge=1)]

_DETAILS_IN_WALDUR = (
    "description",
    "article_code",
    "min_value",
    "max_value",
    "default_limit",
    "max_available_limit",
    "limit_period",
    "is_boolean",
    "is_prepaid",
    "min_prepaid_duration",
    "max_prepaid_duration",
    "prepaid_duration_step",
    "min_renewal_duration",
    "max_renewal_duration",
    "renewal_duration_step",
)
"""Keys of a component that Waldur knows by the same name, and the agent only passes on."""
_FOR_PLUGINS = ("backend_name", "enforce_limits", "type", "mup_allocation_type")


class TargetSettings(Section):
    """One entry of ``target_components``."""

    factor: Decimal = Field(default=Decimal(1), gt=0)
    """Backend units of the target in one measured unit of the component."""


class ComponentSettings(Section):
    """One entry of ``backend_components``."""

    measured_unit: str
    """Waldur's unit of the component, such as ``k-Hours``."""
    unit_factor: Decimal = Field(default=Decimal(1), gt=0)
    """Backend units in one measured unit."""
    unit_factor_reporting: Decimal | None = Field(default=None, gt=0)
    """The same for usage, where it is divided by another number than limits are multiplied by."""
    target_components: dict[str, TargetSettings] = Field(default_factory=dict)
    """What one measured unit consists of in the backend, such as a node-hour of cores and GPUs:
    type to its ``factor``. Limits are set on each; of usage the largest share counts."""
    accounting_type: Literal["usage", "limit", "one"]
    """``limit``: the resource's own limit from Waldur is set. ``usage``: paid by use. ``one``: paid
    in advance; the limit is for one month, and the account gets it for all months until the end
    date of the resource. With ``is_prepaid: false`` it is a one-time fee, without a limit."""
    label: str
    """The component's name in Waldur."""
    limit: Decimal | None = Field(default=None, ge=0)
    """With ``usage``: a cap, in measured units, that every new account gets. With every type,
    ``components load`` writes it to Waldur as the component's amount."""
    description: OptionalText = ""
    """Shown to customers; this and the keys below are written by ``components load``, and what is
    not given keeps its value in Waldur."""
    article_code: OptionalText = ""
    """The article code on invoices."""
    min_value: Decimal | None = None
    """The least that one order may ask for, in measured units."""
    max_value: Decimal | None = None
    """The most that one order may ask for."""
    default_limit: Decimal | None = None
    """What the order form suggests."""
    max_available_limit: Decimal | None = None
    """The most that all resources of the offering may have together."""
    limit_period: Literal["month", "quarterly", "annual", "total"] | None = None
    """The period that a limit is for in Waldur's prices; limits of accounts do not depend on it."""
    is_boolean: bool | None = None
    """Whether customers only choose between yes and no."""
    is_prepaid: bool | None = None
    """Whether the component is paid in advance, for a number of months; true with ``one``."""
    min_prepaid_duration: Months = None
    """The fewest months that can be paid in advance."""
    max_prepaid_duration: Months = None
    """The most."""
    prepaid_duration_step: Months = None
    """Only multiples of it."""
    min_renewal_duration: Months = None
    """The fewest months of a renewal."""
    max_renewal_duration: Months = None
    """The most."""
    renewal_duration_step: Months = None
    """Only multiples of it."""
    backend_name: OptionalText = ""
    """This and the keys below are only for plugins written for version 1: here, the component's
    name on the plugin's side."""
    enforce_limits: bool | None = None
    """Whether the plugin enforces limits of the component."""
    type: OptionalText = ""
    """The kind of the component on the plugin's side."""
    mup_allocation_type: OptionalText = ""
    """The kind of allocation on the plugin's side."""

    @field_validator("target_components", mode="before")
    @classmethod
    def _empty_targets(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {} if value is None else value
        return {name: {} if target is None else target for name, target in value.items()}

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The keys that are set although ``target_components`` overrides them."""
        keys = {"unit_factor": self.unit_factor != 1}
        keys["unit_factor_reporting"] = self.unit_factor_reporting is not None
        return tuple(key for key, is_set in keys.items() if is_set and self.target_components)

    def component(self, name: str) -> Component:
        """The entry as the value that planning and backends speak of."""
        return Component(
            type=name,
            measured_unit=self.measured_unit,
            label=self.label,
            accounting_type=self.accounting_type,
            unit_factor=self.unit_factor,
            limit=self.limit,
            usage_factor=None if self.target_components else self.unit_factor_reporting,
            targets={name: target.factor for name, target in self.target_components.items()},
            details=self._given(_DETAILS_IN_WALDUR),
            for_plugins=self._given(_FOR_PLUGINS),
        )

    def _given(self, keys: Iterable[str]) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in keys}
        return {key: value for key, value in values.items() if value not in (None, "")}


class Safety(Section):
    """How much a single plan may take away before somebody has to allow it.

    A plan is refused when it removes more than ``max_removals_percent`` of the members of an
    offering and also more than ``max_removals`` of them. Removals that terminate orders ask for
    do not count. The same goes for accounts of projects that would move to other customers'.
    """

    max_removals_percent: Decimal = Field(default=Decimal(30), ge=0, le=100)
    """A plan is refused when it removes more than this share of an offering's members ..."""
    max_removals: int = Field(default=10, ge=0)
    """... and also more than this number of them."""
    max_moves_percent: Decimal = Field(default=Decimal(20), ge=0, le=100)
    """Moves of accounts of projects are refused when they are more than this share of them ..."""
    max_moves: int = Field(default=3, ge=0)
    """... and also more than this number."""
    allow_removals: bool = False
    """Overrules all four, as ``--allow-removals`` does."""
    unknown_users: Literal["report", "remove"] = "report"
    """What to do with users of an account whom Waldur does not know."""
    unreported_usage: Literal["wait", "wait_for_past_months", "complete"] = "wait"
    """What to do with a terminate order whose resource's last usage this token may not report:
    ``wait`` leaves it executing, ``wait_for_past_months`` also for what only staff may report,
    ``complete`` ends it, and the usage is never billed."""
    missing_limits: Literal["unlimited", "refuse"] = "unlimited"
    """What to do with an order that leaves out the limit of a component that is sold by limit, as
    Waldur lets customers do: ``unlimited`` sets none, so that usage is unlimited and not billed,
    ``refuse`` marks the order erred."""


class Events(Section):
    """How ``event_process`` makes up for what the message broker may lose."""

    full_pass_minutes: float = Field(default=60, gt=0, le=1440)
    """How often a full pass over the offering runs, besides those at start and reconnect."""


def _webhook_url(secret: SecretStr) -> SecretStr:
    """Check a webhook; messages never show it, because many are secret as a whole."""
    text = secret.get_secret_value()
    try:
        parts = urlsplit(text)
        usable = not text or (parts.scheme in ("http", "https") and bool(parts.hostname))
        usable = usable and parts.port != 0 and text.isprintable()
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected a URL such as https://chat.example.com/hooks/budgets")
    return secret


def _file_mode(text: str) -> str:
    if re.fullmatch(r"0?[0-7]{3}", text) is None or int(text, 8) & 0o022:
        raise ValueError('expected an octal mode that lets only the owner write, such as "0644"')
    return text


def _program(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not words[0].startswith("/"):
        raise ValueError("expected a list that begins with the absolute path of a program")
    return words


def _absolute(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError("expected an absolute path")
    return text


class Budgets(Section):
    """What is told when resources use up their limits, and to whom. Without it, nothing is."""

    warn_at_percent: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = (80, 100)
    """A notice is given once when this much of a limit is used."""
    notify_roles: tuple[Literal["manager", "admin", "member"], ...] = ("manager",)
    """Whose e-mail addresses a notice has: people with these roles in the resource's project."""
    webhook: Annotated[SecretStr, AfterValidator(_webhook_url), BeforeValidator(_empty_is_off)] = (
        SecretStr("")
    )
    """Notices are posted to this URL as JSON; it is masked like a password. Or ``${VARIABLE}``."""
    webhook_token: Annotated[SecretStr, BeforeValidator(_empty_is_off)] = SecretStr("")
    """Sent to the webhook as a bearer token, or ``${VARIABLE}``."""
    command: Annotated[tuple[str, ...], AfterValidator(_program)] = ()
    """A program and its arguments, run for each notice, which it reads as JSON from its standard
    input. ``{account}``, ``{component}`` and ``{percent}`` are replaced in the arguments."""
    file: Annotated[OptionalText, AfterValidator(_absolute)] = ""
    """Where the budgets are written for ``waldur-budget`` on login nodes."""
    file_mode: Annotated[str, AfterValidator(_file_mode)] = "0644"
    """The mode of that file, in octal. It names accounts and resources, but no people."""


class Offering(Section):
    """One entry of ``offerings``: a Waldur offering bound to a backend."""

    name: str = Field(min_length=1)
    """Shown in logs; must differ between offerings."""
    waldur_api_url: Annotated[str, AfterValidator(_http_url)]
    """Such as ``https://waldur.example.com/api/``; with or without ``/api`` and the last slash."""
    waldur_api_token: SecretStr = SecretStr("")
    """The token of the agent's user, or ``${VARIABLE}``."""
    waldur_api_token_file: OptionalText = ""
    """A file that holds the token, instead of ``waldur_api_token``."""
    oidc_token_url: Annotated[OptionalText, AfterValidator(_token_url)] = ""
    """The token endpoint of an OpenID Connect provider. With this and the two keys below, and
    without ``waldur_api_token``, the agent logs in with client credentials."""
    oidc_client_id: OptionalText = ""
    """The agent's client at that provider."""
    oidc_client_secret: Annotated[SecretStr, BeforeValidator(_empty_is_off)] = SecretStr("")
    """The client's secret, or ``${VARIABLE}``."""
    oidc_client_secret_file: OptionalText = ""
    """A file that holds the secret, instead of ``oidc_client_secret``."""
    verify_ssl: bool = True
    """Whether the server's certificate is checked."""
    waldur_offering_uuid: UUID
    """The offering in Waldur; with or without dashes."""

    backend_type: OptionalText = ""
    """Older files: stands for the three keys below where none of them is given."""
    order_processing_backend: OptionalText = ""
    """Name of the backend that carries out orders; empty: that job does not run."""
    membership_sync_backend: OptionalText = ""
    """Name of the backend whose members are kept; empty: that job does not run."""
    reporting_backend: OptionalText = ""
    """Name of the backend whose usage is reported; empty: that job does not run."""
    username_management_backend: str = "base"
    """Who makes usernames; ``base`` makes none, ``template`` follows a pattern."""
    username_management_settings: dict[str, Any] = Field(default_factory=dict)
    """Owned by the username backend."""
    resource_import_enabled: bool = False
    """Whether Waldur is told, on request, of accounts that it does not know."""
    preserve_unmanaged_backend_users: bool | None = None
    """``true``: users of an account whom Waldur does not know stay and are listed; ``false``: they
    are removed. Where it is set, ``unknown_users`` of ``safety`` does not count."""
    pending_order_timeout_hours: float | None = Field(default=None, gt=0)
    """Of backends that finish orders later: after how many hours such an order is marked erred;
    by default never."""
    require_consent: bool = False
    """Whether only people who have consented to the offering's terms of service are let in."""
    allow_decrease: bool = False
    """Whether usage may be reported lower than before; normal for some backends, else a mistake."""

    stomp_enabled: bool = False
    """Events over STOMP: ``event_process`` owns the offering, and the polling modes skip it."""
    mqtt_enabled: bool = False
    """The same over MQTT, for servers of 2025; at most one of the two."""
    websocket_use_tls: bool = True
    """``false`` means plain ``ws://``, for a broker on the same machine."""
    stomp_ws_host: OptionalText = ""
    """The broker; by default the host of ``waldur_api_url``."""
    stomp_ws_port: Port = 443
    """The port of its WebSocket; without TLS 80."""
    stomp_ws_path: str = "/rmqws-stomp"
    """The path of its WebSocket."""
    mqtt_ws_host: OptionalText = ""
    """As ``stomp_ws_host``, for MQTT."""
    mqtt_ws_port: Port = 443
    """As ``stomp_ws_port``, for MQTT."""
    mqtt_ws_path: str = "/rmqws"
    """As ``stomp_ws_path``, for MQTT."""
    ca_file: OptionalText = ""
    """A file of certificate authorities for Waldur and its message broker, besides the system's."""

    backend_settings: dict[str, Any] = Field(default_factory=dict)
    """Owned by the backend."""
    backend_components: dict[str, ComponentSettings] = Field(default_factory=dict)
    """What is counted and limited: component type to its unit and kind."""
    approve_orders: Literal["always", "never", "backend"] = "always"
    """Who approves pending orders. ``always``: the agent, all of them; ``never``: people, in
    Waldur; ``backend``: the backend decides whether to approve, to reject with a reason, or to
    wait."""
    limits: Literal["backend", "waldur", "report"] = "backend"
    """Who wins when limits differ. ``backend``: Waldur is told what the account has; ``waldur``:
    the account gets what was sold; ``report``: neither changes; plan and log show both."""
    moved_projects: Literal["follow", "report"] = "follow"
    """What becomes of the account of a project that has moved to another organization.
    ``follow``: it moves below the organization's account, with everything below it; ``report``: it
    stays, and plan and log name it."""
    safety: Safety | None = None
    """The offering's own thresholds; they replace those of the file as a whole."""
    budgets: Budgets | None = None
    """Notices of budgets that are used up, and a file of them for ``waldur-budget``."""
    _proxy: SecretStr = PrivateAttr(SecretStr(""))

    @field_validator(
        "backend_settings", "backend_components", "username_management_settings", mode="before"
    )
    @classmethod
    def _empty_mapping(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="before")
    @classmethod
    def _backend_type_stands_for_all_jobs(cls, values: Any) -> Any:
        """Older files name one backend for everything; it counts where no job names its own."""
        if not isinstance(values, dict) or not values.get("backend_type"):
            return values
        keys = [job.value for job in Job]
        if any(key in values for key in keys):
            return values
        return {**values, **dict.fromkeys(keys, str(values["backend_type"]).lower())}

    @model_validator(mode="before")
    @classmethod
    def _plain_port_without_tls(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("stomp_ws_port"):
            return values
        has_tls = str(values.get("websocket_use_tls", True)).strip().lower() not in FALSE_WORDS
        return {**values, "stomp_ws_port": 443 if has_tls else 80}

    @model_validator(mode="after")
    def _one_decision_on_unknown_users(self) -> Offering:
        is_double = self.safety is not None and "unknown_users" in self.safety.model_fields_set
        if is_double and self.preserve_unmanaged_backend_users is not None:
            raise ValueError(
                "preserve_unmanaged_backend_users and safety.unknown_users are both set; "
                "keep one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_event_transport(self) -> Offering:
        if self.stomp_enabled and self.mqtt_enabled:
            raise ValueError(
                "stomp_enabled and mqtt_enabled are both true; set at most one of them"
            )
        return self

    @model_validator(mode="after")
    def _client_credentials_are_whole(self) -> Offering:
        given = {
            "oidc_token_url": self.oidc_token_url,
            "oidc_client_id": self.oidc_client_id,
            "oidc_client_secret": self.oidc_client_secret.get_secret_value(),
        }
        missing = [key for key, value in given.items() if not value]
        if missing and len(missing) < len(given):
            raise ValueError(
                f"{', '.join(given)} belong together, and {', '.join(missing)} is missing; set all "
                "three, or none"
            )
        if self.by_events and self.uses_oidc:
            switch = "mqtt_enabled" if self.mqtt_enabled else "stomp_enabled"
            raise ValueError(
                f"{switch} needs waldur_api_token (or waldur_api_token_file): the password for "
                "RabbitMQ is the API token of the agent's user, and the broker does not accept "
                f"access tokens of an identity provider; set it, or set {switch} to false"
            )
        return self

    @model_validator(mode="after")
    def _each_target_belongs_to_one_component(self) -> Offering:
        owners: dict[str, str] = {}
        for name, component in self.components.items():
            for part in component.parts:
                owner = owners.setdefault(part.type.lower(), name)
                if owner != name:
                    raise ValueError(
                        f'backend_components: "{part.type}" belongs to both "{owner}" and "{name}" '
                        "(target_components), so its usage would be billed twice; keep it in one "
                        "of them, or sell the other in an offering of its own"
                    )
        return self

    def backend_for(self, job: Job) -> str:
        """The entry-point name of the backend that does this job; empty: the job does not run."""
        return str(getattr(self, job.value))

    @property
    def by_events(self) -> bool:
        """Whether ``event_process`` owns the offering, so that the polling modes skip it."""
        return self.stomp_enabled or self.mqtt_enabled

    @property
    def sets_periodic_limits(self) -> bool:
        """Whether budgets of a periodic policy are set, as ``backend_settings`` say."""
        section = self.backend_settings.get("periodic_limits")
        enabled = section.get("enabled") if isinstance(section, dict) else None
        return bool(enabled) and str(enabled).strip().lower() not in FALSE_WORDS

    @property
    def token(self) -> str:
        """The secret itself; only the gateway may ask for it."""
        return self.waldur_api_token.get_secret_value()

    @property
    def uses_oidc(self) -> bool:
        """Whether the agent logs in as a client of an identity provider."""
        return bool(self.oidc_token_url) and not self.token

    @property
    def login_key(self) -> str:
        """The key that decides who the agent is in Waldur, for messages."""
        return "oidc_client_id" if self.uses_oidc else "waldur_api_token"

    @property
    def proxy(self) -> str:
        """``global_proxy`` of the file; empty if the proxies of the environment are used."""
        return self._proxy.get_secret_value()

    def use_proxy(self, proxy: SecretStr) -> None:
        """Remember ``global_proxy`` of the file."""
        self._proxy = proxy

    @property
    def components(self) -> dict[str, Component]:
        """``backend_components`` as values, by type."""
        return {name: c.component(name) for name, c in self.backend_components.items()}


class LogShipping(Section):
    """Which lines of the log go to Waldur, where the offering's provider can read them."""

    enabled: bool = False
    """Whether services send any."""
    ship_interval_seconds: int = Field(default=60, ge=10)
    """How often."""
    buffer_size_mb: int = Field(default=1, ge=1, le=100)
    """How much waits in memory for each offering; the oldest lines go first."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """What is sent at least; nothing that the file's own ``log_level`` leaves out."""
    send_names: bool = False
    """Whether lines may name people, projects and accounts; otherwise they say what happened."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _as_here(cls, value: Any) -> Any:
        """In any case; ``CRITICAL`` of version 1 has nothing below ``error``."""
        level = value.lower() if isinstance(value, str) else value
        return "error" if level == "critical" else level


class Configuration(Section):
    """The whole file."""

    sentry_dsn: SecretStr | None = None
    """Where defects are reported; without it nowhere."""
    sentry_send_names: bool = False
    """Whether such reports may name people, projects and resources; otherwise they are masked."""
    timezone: Annotated[str, AfterValidator(_time_zone)] | None = None
    """Billing months are cut in this zone; ``None`` is the machine's own."""
    global_proxy: Annotated[
        SecretStr, AfterValidator(_proxy_url), BeforeValidator(_empty_is_off)
    ] = SecretStr("")
    """A proxy (http, https, socks5 or socks5h) for Waldur, identity providers and brokers; then
    the proxies of the environment, and NO_PROXY, do not count."""
    coordination: Annotated[
        SecretStr, AfterValidator(_coordination_url), BeforeValidator(_empty_is_off)
    ] = SecretStr("")
    """A database whose session locks decide which of several agents does what:
    ``postgresql://USER:PASSWORD@HOST/NAME`` or ``mysql://...``, ``${VARIABLE}`` allowed; without it
    file locks, for one agent on one machine."""
    coordination_file: OptionalText = ""
    """A file that holds this URL, instead of ``coordination``."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged at least."""
    log_format: Literal["console", "json"] = "console"
    """``console`` for people, ``json`` for machines."""
    safety: Safety = Safety()
    """How much a cycle may take away before somebody has to allow it."""
    events: Events = Events()
    """How ``event_process`` makes up for what the broker may lose."""
    reserved_usernames: tuple[str, ...] = ()
    """Usernames that nobody in Waldur may have, besides ``root``, ``slurm`` and the agent's own."""
    log_shipping: LogShipping = LogShipping()
    """Warnings and errors of the log go to Waldur, too."""
    journal: str | None = None
    """A file that gets every change as a line of JSON; SIGHUP opens it again."""
    metrics_listen: Annotated[OptionalText, AfterValidator(_listen_address)] = ""
    """``HOST:PORT``, or ``unix:/PATH``, of ``/metrics``, ``/health`` and the pages of status."""
    status_page_token: SecretStr | None = None
    """The bearer token of the pages; without one they are served on loopback and unix sockets."""
    status_page_names: bool = False
    """Whether the pages name people: members, users in plots, entries of the journal."""
    health_file: OptionalText = ""
    """A file, written every 10 seconds, that says how the agent does; ``{mode}`` is its mode. By
    default it is below ``/run/waldur-site-agent``, if the agent may write there."""
    stuck_after_minutes: float = Field(default=30, gt=0)
    """How long a cycle may wait in silence before it counts as stuck."""
    offerings: tuple[Offering, ...]
    """At least one."""

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _in_any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("offerings", mode="before")
    @classmethod
    def _at_least_one(cls, value: Any) -> Any:
        if not value:
            raise ValueError("names no offering; at least one is needed")
        return value

    @model_validator(mode="after")
    def _one_proxy_for_all(self) -> Configuration:
        for offering in self.offerings:
            offering.use_proxy(self.global_proxy)
        return self

    @model_validator(mode="after")
    def _names_and_offerings_differ(self) -> Configuration:
        for key in ("name", "waldur_offering_uuid"):
            seen: set[object] = set()
            for offering in self.offerings:
                value = getattr(offering, key)
                place = (value, offering.waldur_api_url.rstrip("/")) if key != "name" else value
                if place in seen:
                    raise ValueError(f'offerings: two entries have the same {key} "{value}"')
                seen.add(place)
        return self

    @property
    def coordination_url(self) -> DatabaseUrl | None:
        """The database that coordinates agents; ``None`` where file locks do."""
        text = self.coordination.get_secret_value()
        return DatabaseUrl.parse(text) if text else None

    def safety_of(self, offering: Offering) -> Safety:
        """The offering's own thresholds, or those of the file."""
        safety = offering.safety or self.safety
        if offering.preserve_unmanaged_backend_users is None:
            return safety
        kept = offering.preserve_unmanaged_backend_users
        return safety.model_copy(update={"unknown_users": "report" if kept else "remove"})


ENVIRONMENT_FILE = "environment"
_ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def with_environment_file(environ: Mapping[str, str], file: Path) -> dict[str, str]:
    """The variables of the process, and those of the file where the process has none.

    So a command that is typed by hand finds the same token as a unit with ``EnvironmentFile=``.

    Raises:
        OSError, UnicodeDecodeError: the file is there and cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return dict(environ)
    return {**assignments(text), **{name: value for name, value in environ.items() if value}}


def assignments(text: str) -> dict[str, str]:
    """The variables of an environment file: ``NAME=value``, the value in quotes or not."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.fullmatch(line)
        if match:
            name, value = match[1], match[2].strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1] if quoted else value
    return found
