"""Stands for ``waldur_site_agent.backend.backends``: the classes that plugins of version 1 inherit.

The methods are those that such plugins override, call or inherit, with the behaviour that they rely
on. What the agent of version 1 called and this one does not is kept as harmless defaults.
"""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from waldur_api_client.models.offering_user_state import OfferingUserState
from waldur_api_client.models.resource_state import ResourceState

from waldur_site_agent_v1_plugins.errors import says_not_found
from waldur_site_agent_v1_plugins.interface.backend import BackendType, logger
from waldur_site_agent_v1_plugins.interface.backend.clients import BaseClient, UnknownClient
from waldur_site_agent_v1_plugins.interface.backend.exceptions import (
    BackendError,
    BackendNotReadyError,
    DuplicateResourceError,
    UserNotProvisionedError,
)
from waldur_site_agent_v1_plugins.interface.backend.structures import BackendResourceInfo

__all__ = [
    "DEPARTED_OFFERING_USER_STATES",
    "LIVE_OFFERING_USER_STATES",
    "AbstractUsernameManagementBackend",
    "AddedUsers",
    "BackendRole",
    "BackendType",
    "BaseBackend",
    "BaseClient",
    "PendingOrderDecision",
    "RemovedUsers",
    "UnknownBackend",
    "UnknownClient",
    "UnknownUsernameManagementBackend",
]

DEPARTED_OFFERING_USER_STATES = (
    OfferingUserState.REQUESTED_DELETION,
    OfferingUserState.DELETING,
    OfferingUserState.ERROR_DELETING,
)
LIVE_OFFERING_USER_STATES = (
    OfferingUserState.OK,
    OfferingUserState.REQUESTED,
    OfferingUserState.CREATING,
    OfferingUserState.ERROR_CREATING,
    OfferingUserState.PENDING_ACCOUNT_LINKING,
    OfferingUserState.PENDING_ADDITIONAL_VALIDATION,
)

_TOTAL = "TOTAL_ACCOUNT_USAGE"


class BackendRole(str, enum.Enum):
    """The jobs of a backend."""

    ORDER_PROCESSING = "order_processing"
    MEMBERSHIP_SYNC = "membership_sync"
    REPORTING = "reporting"


class PendingOrderDecision(enum.Enum):
    """What a plugin decides about an order before it is approved."""

    ACCEPT = "accept"
    REJECT = "reject"
    PENDING = "pending"


class AddedUsers(set[str]):
    """Those who were added, and why others were not."""

    def __init__(
        self, added: Iterable[str] = (), failed: Mapping[str, Exception] | None = None
    ) -> None:
        super().__init__(added)
        self.failed: dict[str, Exception] = dict(failed or {})


class RemovedUsers(list[str]):
    """Those who are no longer there, and why others still are."""

    def __init__(
        self, removed: Iterable[str] = (), failed: Mapping[str, Exception] | None = None
    ) -> None:
        super().__init__(removed)
        self.failed: dict[str, Exception] = dict(failed or {})


class _Strict(threading.local):
    requested = False


class BaseBackend(ABC):
    """Base of the resource backends of version 1."""

    supported_roles = frozenset(BackendRole)
    supports_decreasing_usage = False
    supports_async_orders = False
    supports_resource_api_keys = False
    supports_resource_api_key_lifecycle = False
    supports_resource_api_key_usage = False
    supports_daily_usage = False
    supports_spending_limit_periods = False
    supports_cycle_preflight = False
    supports_user_homedirs = False
    supports_periodic_settings = False
    requires_source_project = False
    requires_resource_key_assignees = False
    shared_project_membership = False
    team_fetch_attempts = 1
    team_fetch_delay = 3.0
    handled_resource_states = (ResourceState.OK, ResourceState.ERRED)

    _strict = _Strict()

    def __init__(
        self, backend_settings: dict[str, Any], backend_components: dict[str, dict[str, Any]]
    ) -> None:
        self.backend_type = "abstract"
        self.backend_settings = backend_settings
        self.backend_components = backend_components
        self.client: Any = UnknownClient()
        self.service_provider_uuid: str | None = None
        self.timezone = ""
        self.offering_partitions: list[str] = []
        self.partition_enforcement_enabled = False

    @abstractmethod
    def ping(self, raise_exception: bool = False) -> bool:
        """Whether the backend answers."""

    @abstractmethod
    def diagnostics(self) -> bool:
        """Whether everything is set up."""

    @abstractmethod
    def list_components(self) -> list[str]:
        """The components that the backend has."""

    @abstractmethod
    def _get_usage_report(self, resource_backend_ids: list[str]) -> dict[str, dict[str, Any]]:
        """Usage of the current month by resource and user, in Waldur's units."""

    @abstractmethod
    def downscale_resource(self, resource_backend_id: str) -> bool:
        """Downscale a resource."""

    @abstractmethod
    def pause_resource(self, resource_backend_id: str) -> bool:
        """Pause a resource."""

    @abstractmethod
    def restore_resource(self, resource_backend_id: str) -> bool:
        """Undo both."""

    @abstractmethod
    def get_resource_metadata(self, resource_backend_id: str) -> dict[str, Any]:
        """What Waldur keeps as metadata."""

    @abstractmethod
    def _collect_resource_limits(
        self, waldur_resource: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The limits of a resource in backend units, and in Waldur's."""

    @abstractmethod
    def _pre_create_resource(
        self, waldur_resource: Any, user_context: dict[str, Any] | None = None
    ) -> None:
        """What comes before each attempt of a creation."""

    def run_preflight(self) -> None:
        """Make sure that the backend is ready for orders."""
        if not self.ping():
            raise BackendNotReadyError("the backend does not answer")

    def evaluate_pending_order(self, order: Any, waldur_rest_client: Any) -> PendingOrderDecision:
        """Decide about an order before it is approved."""
        del order, waldur_rest_client
        return PendingOrderDecision.ACCEPT

    def check_pending_order(self, order_backend_id: str) -> bool:
        """Whether an asynchronous order is done."""
        del order_backend_id
        return True

    def create_resource(
        self, waldur_resource: Any, user_context: dict[str, Any] | None = None
    ) -> BackendResourceInfo:
        """Create a resource under an id made of its slug."""
        resource_backend_id = self._get_resource_backend_id(waldur_resource.slug)
        return self.create_resource_with_id(waldur_resource, resource_backend_id, user_context)

    def create_resource_with_id(
        self,
        waldur_resource: Any,
        resource_backend_id: str,
        user_context: dict[str, Any] | None = None,
    ) -> BackendResourceInfo:
        """Create a resource under this id, with its limits."""
        self._pre_create_resource(waldur_resource, user_context)
        project = self._get_project_backend_id(waldur_resource.project_slug)
        created = self._create_backend_resource(
            resource_backend_id, waldur_resource.name, project, project
        )
        if created is False:
            raise DuplicateResourceError(resource_backend_id)
        self._on_backend_resource_created(resource_backend_id, waldur_resource)
        limits = self._setup_resource_limits(resource_backend_id, waldur_resource)
        info = BackendResourceInfo(backend_id=resource_backend_id, limits=limits)
        self.post_create_resource(info, waldur_resource, user_context)
        return info

    def _create_backend_resource(
        self,
        resource_backend_id: str,
        resource_name: str,
        resource_organization: str,
        resource_parent_name: str | None = None,
    ) -> bool:
        if self._client_has(resource_backend_id):
            return False
        self.client.create_resource(
            resource_backend_id, resource_name, resource_organization, resource_parent_name
        )
        return True

    def _create_resource_in_backend(self, waldur_resource: Any) -> str:
        """Version 0.7 only: create the resource and return its id."""
        resource_backend_id = self._get_resource_backend_id(waldur_resource.slug)
        project = self._get_project_backend_id(waldur_resource.project_slug)
        if not self._create_backend_resource(
            resource_backend_id, waldur_resource.name, project, project
        ):
            raise BackendError(f"Resource {resource_backend_id} already exists")
        return resource_backend_id

    def _on_backend_resource_created(self, resource_backend_id: str, waldur_resource: Any) -> None:
        """Told right after the creation."""

    def post_create_resource(
        self,
        resource: BackendResourceInfo,
        waldur_resource: Any,
        user_context: dict[str, Any] | None = None,
    ) -> None:
        """What follows a creation."""

    def _setup_resource_limits(
        self, resource_backend_id: str, waldur_resource: Any
    ) -> dict[str, Any]:
        backend_limits, waldur_limits = self._collect_resource_limits(waldur_resource)
        if backend_limits:
            self.client.set_resource_limits(resource_backend_id, backend_limits)
        return waldur_limits

    def set_resource_limits(self, resource_backend_id: str, limits: dict[str, Any]) -> str | None:
        """Set limits, given in Waldur's units."""
        converted = {
            name: int(value * self.backend_components[name].get("unit_factor", 1))
            for name, value in limits.items()
            if name in self.backend_components and value is not None
        }
        self.client.set_resource_limits(resource_backend_id, converted)
        return None

    def get_resource_limits(self, resource_backend_id: str) -> dict[str, Any]:
        """The limits that the client has."""
        return dict(self.client.get_resource_limits(resource_backend_id) or {})

    def sync_resource_limits(self, waldur_resource: Any, waldur_rest_client: Any) -> None:
        """Not used: the agent compares limits."""

    def get_resource_user_limits(self, resource_backend_id: str) -> dict[str, dict[str, Any]]:
        """The limits of single users."""
        return dict(self.client.get_resource_user_limits(resource_backend_id) or {})

    def set_resource_user_limits(
        self, resource_backend_id: str, username: str, limits: dict[str, Any]
    ) -> None:
        """Set the limits of one user; none clears them."""
        self.client.set_resource_user_limits(resource_backend_id, username, limits)

    def delete_resource(self, waldur_resource: Any, **kwargs: Any) -> str | None:
        """Delete a resource, and its project when nothing else is left in it."""
        resource_backend_id = waldur_resource.backend_id
        if not resource_backend_id or not str(resource_backend_id).strip():
            return None
        if not self._client_has(resource_backend_id):
            return None
        self._pre_delete_resource(waldur_resource)
        if self.backend_settings.get("soft_delete"):
            zero = dict.fromkeys(self.backend_components, 0)
            self.client.set_resource_limits(resource_backend_id, zero)
        else:
            self._delete_resource_safely(resource_backend_id)
            self._delete_empty_project(kwargs.get("project_slug", ""))
        self.post_delete_resource(waldur_resource)
        return None

    def _delete_empty_project(self, project_slug: str) -> None:
        if not project_slug:
            return
        project = self._get_project_backend_id(project_slug)
        children = [one for one in self.client.list_resources() if one.organization == project]
        left = [one for one in children if one.name != project]
        if not left and self._client_has(project):
            self._delete_resource_safely(project)

    def _client_has(self, resource_backend_id: str) -> bool:
        """Whether it exists; client libraries answer with nothing, or raise a 404."""
        try:
            return self.client.get_resource(resource_backend_id) is not None
        except Exception as error:
            if says_not_found(error):
                return False
            raise

    def _delete_resource_safely(self, resource_backend_id: str) -> None:
        if self._client_has(resource_backend_id):
            self.client.delete_resource(resource_backend_id)

    def _pre_delete_resource(self, waldur_resource: Any) -> None:
        """What comes before a deletion."""

    def post_delete_resource(self, waldur_resource: Any) -> None:
        """What follows a deletion."""

    def strict_pull_requested(self) -> bool:
        """Whether a failed read must raise instead of looking like an absence."""
        return self._strict.requested

    @contextmanager
    def _strictly(self, strict: bool) -> Iterator[None]:
        before, self._strict.requested = self._strict.requested, strict
        try:
            yield
        finally:
            self._strict.requested = before

    def pull_resources(
        self, waldur_resources: Iterable[Any], include_usage: bool = True, strict: bool = False
    ) -> dict[str, tuple[Any, BackendResourceInfo]]:
        """What the backend has of these resources, by id; absent ones are left out."""
        del include_usage
        found: dict[str, tuple[Any, BackendResourceInfo]] = {}
        for resource in waldur_resources:
            try:
                with self._strictly(strict):
                    info = self.pull_resource(resource)
            except Exception as error:  # a plugin may fail in any way; the others go on
                if strict:
                    raise BackendError(f"{resource.backend_id}: {error}") from error
                logger.exception("cannot pull resource", resource=resource.backend_id)
                continue
            if info is not None:
                found[resource.backend_id] = (resource, info)
        return found

    def pull_resource(self, waldur_resource: Any) -> BackendResourceInfo | None:
        """What the backend has of a resource; ``None`` if it does not exist."""
        if not waldur_resource.backend_id:
            return None
        try:
            return self._pull_backend_resource(waldur_resource.backend_id)
        except Exception:
            if self.strict_pull_requested():
                raise
            logger.exception("cannot pull resource", resource=waldur_resource.backend_id)
            return None

    def _pull_backend_resource(self, resource_backend_id: str) -> BackendResourceInfo | None:
        if not self._client_has(resource_backend_id):
            return None
        users = self.client.list_resource_users(resource_backend_id)
        report = self._get_usage_report([resource_backend_id])
        usage = report.get(resource_backend_id)
        if usage is None:
            usage = {_TOTAL: dict.fromkeys(self.backend_components, 0)}
        return BackendResourceInfo(backend_id=resource_backend_id, users=users, usage=usage)

    def list_resources(self) -> list[BackendResourceInfo]:
        """Everything that the backend has."""
        return [
            BackendResourceInfo(backend_id=one.name, parent_id=one.organization)
            for one in self.client.list_resources()
        ]

    def recreate_missing_resource(self, waldur_resource: Any) -> bool:
        """Create a resource again under its old id."""
        if self._client_has(waldur_resource.backend_id):
            return False
        self.create_resource_with_id(waldur_resource, waldur_resource.backend_id)
        return True

    def add_users_to_resource(
        self, waldur_resource: Any, user_ids: set[str], **kwargs: Any
    ) -> set[str]:
        """Add users; those who could not be added are in ``failed``."""
        added, failed = set(), {}
        for username in user_ids:
            try:
                if self.add_user(waldur_resource, username, **kwargs):
                    added.add(username)
            except UserNotProvisionedError:
                continue
            except BackendError as error:
                failed[username] = error
        return AddedUsers(added, failed)

    def add_user(self, waldur_resource: Any, username: str, **kwargs: Any) -> bool:
        """Add one user; false if there was nothing to do."""
        del kwargs
        if not username:
            return False
        resource_backend_id = _id_of(waldur_resource)
        if self.client.get_association(username, resource_backend_id) is None:
            default = self.backend_settings.get("default_account")
            self.client.create_association(username, resource_backend_id, default)
        return True

    def remove_users_from_resource(
        self, waldur_resource: Any, usernames: set[str], **kwargs: Any
    ) -> list[str]:
        """Remove users; those who could not be removed are in ``failed``."""
        removed, failed = [], {}
        for username in usernames:
            try:
                self.remove_user(waldur_resource, username, **kwargs)
                removed.append(username)
            except BackendError as error:
                failed[username] = error
        return RemovedUsers(removed, failed)

    def remove_user(self, waldur_resource: Any, username: str, **kwargs: Any) -> bool:
        """Remove one user; false if nothing was there."""
        del kwargs
        resource_backend_id = _id_of(waldur_resource)
        if not username or self.client.get_association(username, resource_backend_id) is None:
            return False
        self._pre_delete_user_actions(resource_backend_id, username)
        self.client.delete_association(username, resource_backend_id)
        return True

    def _pre_delete_user_actions(self, resource_backend_id: str, username: str) -> None:
        """What comes before a removal."""

    def process_existing_users(self, existing_users: set[str]) -> None:
        """Told of those who are members already."""

    def reconcile_existing_user_roles(
        self,
        waldur_resource: Any,
        usernames: set[str],
        user_roles: dict[str, str] | None = None,
        user_cuids: dict[str, str] | None = None,
    ) -> None:
        """Told of the roles of those who are members already."""

    def get_membership_sync_report(self, waldur_resource: Any) -> list[dict[str, Any]] | None:
        """Not used."""
        del waldur_resource
        return None

    def sync_resource_project(self, waldur_resource: Any, source_project: Any = None) -> None:
        """Told of the project, before members."""

    def sync_project_end_date(
        self, waldur_resource: Any, waldur_rest_client: Any, source_project: Any = None
    ) -> None:
        """Not used."""

    def sync_resource_end_date(self, waldur_resource: Any, waldur_rest_client: Any) -> None:
        """Not used."""

    def sync_resource_effective_id(self, waldur_resource: Any, waldur_rest_client: Any) -> None:
        """Not used."""

    def has_prepaid_components(self) -> bool:
        """Whether limits follow from the whole resource."""
        return False

    def update_user_attributes(self, username: str, attributes: dict[str, Any]) -> None:
        """Not used."""

    def sync_offering_user_usernames(self, offering_uuid: str, waldur_rest_client: Any) -> bool:
        """Not used."""
        del offering_uuid, waldur_rest_client
        return False

    def get_usage_report_for_period(
        self, resource_backend_ids: list[str], year: int, month: int, waldur_resource: Any = None
    ) -> dict[str, dict[str, Any]]:
        """Usage of a past month; nothing if the backend cannot tell it."""
        del resource_backend_ids, year, month, waldur_resource
        return {}

    def get_daily_usage_report_for_period(
        self, resource_backend_ids: list[str], year: int, month: int
    ) -> dict[str, Any]:
        """Not used."""
        del resource_backend_ids, year, month
        return {}

    def create_user_homedirs(self, usernames: set[str], umask: str = "0077") -> None:
        """Make home directories."""
        for username in usernames:
            try:
                self.client.create_linux_user_homedir(username, umask)
            except BackendError as error:
                logger.error("no home directory made", user=username, reason=str(error))

    def apply_periodic_settings(
        self, resource_id: str, settings: dict[str, Any], config: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Not used."""
        del resource_id, settings, config
        return {"success": False, "error": "not supported", "commands_executed": []}

    def setup_target_event_subscriptions(
        self, source_offering: Any, user_agent: str = "", global_proxy: str = ""
    ) -> list[Any]:
        """Not used."""
        del source_offering, user_agent, global_proxy
        return []

    def expects_target_event_subscriptions(self) -> bool:
        """Not used."""
        return False

    def remote_waldur_base_urls(self) -> list[str]:
        """Not used."""
        return []

    def _get_resource_backend_id(self, resource_slug: str, prefix: str = "") -> str:
        prefix = prefix or str(self.backend_settings.get("allocation_prefix") or "")
        return f"{prefix}{resource_slug}".lower()

    def _get_project_backend_id(self, project_slug: str) -> str:
        return f"{self.backend_settings.get('project_prefix') or ''}{project_slug}"

    def _get_customer_backend_id(self, customer_slug: str) -> str:
        return f"{self.backend_settings.get('customer_prefix') or ''}{customer_slug}"

    def mint_resource_key(self, resource_backend_id: str, *args: Any, **kwargs: Any) -> Any:
        """Not used: the agent manages no API keys."""
        raise NotImplementedError

    def pause_resource_key(self, client_id: str, resource_backend_id: str) -> None:
        """Not used."""
        raise NotImplementedError

    def resume_resource_key(self, client_id: str, *args: Any, **kwargs: Any) -> None:
        """Not used."""
        raise NotImplementedError

    def delete_resource_key(self, client_id: str, resource_backend_id: str) -> None:
        """Not used."""
        raise NotImplementedError

    def update_resource_key(self, client_id: str, *args: Any, **kwargs: Any) -> None:
        """Not used."""
        raise NotImplementedError

    def prune_unknown_resource_keys(self, resource_backend_id: str, keep: Any) -> None:
        """Not used."""

    def sync_resource_key_assignees(self, waldur_resource: Any, assignees: Any) -> None:
        """Not used."""

    def get_resource_key_usage_report(self, resource_backend_ids: list[str]) -> dict[str, Any]:
        """Not used."""
        del resource_backend_ids
        return {}

    def get_resource_key_daily_usage_report(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Not used."""
        del args, kwargs
        return {}

    def get_resource_key_usage_report_for_period(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Not used."""
        del args, kwargs
        return {}

    def get_resource_key_daily_usage_report_for_period(
        self, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Not used."""
        del args, kwargs
        return {}


def _id_of(resource: Any) -> str:
    """The id of a resource; version 0.7 passed it instead of the resource."""
    return resource if isinstance(resource, str) else str(resource.backend_id)


class UnknownBackend(BaseBackend):
    """What version 1 used where a backend was missing."""

    def __init__(self) -> None:
        super().__init__({}, {})
        self.backend_type = BackendType.UNKNOWN.value

    def ping(self, raise_exception: bool = False) -> bool:
        """Never."""
        del raise_exception
        return False

    def diagnostics(self) -> bool:
        """Never."""
        return False

    def list_components(self) -> list[str]:
        """None."""
        return []

    def _get_usage_report(self, resource_backend_ids: list[str]) -> dict[str, dict[str, Any]]:
        del resource_backend_ids
        return {}

    def downscale_resource(self, resource_backend_id: str) -> bool:
        """Never."""
        del resource_backend_id
        return False

    def pause_resource(self, resource_backend_id: str) -> bool:
        """Never."""
        del resource_backend_id
        return False

    def restore_resource(self, resource_backend_id: str) -> bool:
        """Never."""
        del resource_backend_id
        return False

    def get_resource_metadata(self, resource_backend_id: str) -> dict[str, Any]:
        """None."""
        del resource_backend_id
        return {}

    def _collect_resource_limits(
        self, waldur_resource: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        del waldur_resource
        return {}, {}

    def _pre_create_resource(
        self, waldur_resource: Any, user_context: dict[str, Any] | None = None
    ) -> None:
        del waldur_resource, user_context


class AbstractUsernameManagementBackend(ABC):
    """Base of the username backends of version 1."""

    is_username_authoritative: Any = True

    def __init__(
        self, backend_settings: dict[str, Any] | None = None, offering: Any = None
    ) -> None:
        self.backend_settings = backend_settings or {}
        self.offering = offering

    @abstractmethod
    def generate_username(self, offering_user: Any) -> str:
        """Make a username."""

    @abstractmethod
    def get_username(self, offering_user: Any) -> str | None:
        """The username that the person has."""

    def get_or_create_username(self, offering_user: Any) -> str:
        """The username that the person has, or a new one."""
        return self.get_username(offering_user) or self.generate_username(offering_user)

    def sync_user_profiles(self, offering_users: list[Any]) -> None:
        """Not used."""

    def reconcile_offering(self, waldur_rest_client: Any) -> None:
        """Not used."""

    def reconciles_project_groups(self) -> bool:
        """Not used."""
        return False

    def reconcile_project_groups(self, waldur_rest_client: Any) -> None:
        """Not used."""

    def release_users(self, offering_users: list[Any], waldur_rest_client: Any) -> None:
        """Not used."""

    def deactivate_users(self, usernames: set[str]) -> None:
        """Not used."""


class UnknownUsernameManagementBackend(AbstractUsernameManagementBackend):
    """Knows and makes no names."""

    def generate_username(self, offering_user: Any) -> str:
        """None."""
        del offering_user
        return ""

    def get_username(self, offering_user: Any) -> str | None:
        """None."""
        del offering_user
        return None
