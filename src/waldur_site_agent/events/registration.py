"""Registers with Waldur for the events of an offering, with the API that the server supports.

There are three generations of servers. What a server lacks is found out by trying, and remembered
until a connection is refused. Nothing is ever deleted: with a user's last subscription Waldur
removes the user's whole virtual host, with all queues and messages.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from waldur_site_agent import __version__
from waldur_site_agent.config import Job, Offering
from waldur_site_agent.events.broker import LoginRefusedError, QueueRefusedError, Subscription
from waldur_site_agent.events.messages import OFFERING_RESOURCES_SYNC
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.events import EventSubscription, ObjectType
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    Waldur,
)

SERVICE = "event_process"
_DESCRIPTION = "waldur-site-agent"
_NEW_LOGIN_SECONDS = 3600.0
"""How many subscriptions are created at most because the logins of all others are refused."""


def object_types_of(offering: Offering) -> tuple[str, ...]:
    """The types of events that the offering's jobs need."""
    types: list[str] = []
    if offering.backend_for(Job.ORDERS):
        types.append(ObjectType.ORDER)
    if offering.backend_for(Job.MEMBERSHIP):
        types += [
            ObjectType.USER_ROLE,
            ObjectType.RESOURCE,
            ObjectType.OFFERING_USER,
            ObjectType.SERVICE_ACCOUNT,
            ObjectType.COURSE_ACCOUNT,
        ]
        if offering.resource_import_enabled:
            types.append(ObjectType.IMPORTABLE_RESOURCES)
        if offering.sets_periodic_limits:
            types.append(ObjectType.PERIODIC_LIMITS)
    return tuple(types)


def identity_name(offering: Offering) -> str:
    """The name of the agent of an offering in Waldur."""
    return f"agent-{offering.waldur_offering_uuid.hex}"


class Registration:
    """Registers this agent for the events of one offering."""

    def __init__(
        self,
        waldur: Waldur,
        offering: Offering,
        log: FilteringBoundLogger,
    ) -> None:
        self._waldur = waldur
        self._offering = offering
        self._uuid = offering.waldur_offering_uuid
        self._log = log
        self._began = datetime.now(UTC)
        self._absent: set[str] = set()
        self._identity: UUID | None = None
        self._service: UUID | None = None
        self._refused_logins: set[str] = set()
        self._login = ""
        self._new_login_after = 0.0

    def subscribe(self, after: SiteAgentError | None = None) -> Subscription:
        """Register, or register again, and return what to subscribe to at the broker.

        Args:
            after: why the last connection failed.

        Raises:
            TemporaryError: Waldur could not be reached, or another user owns the queue.
            PermanentError: Waldur refuses; the message has the remedy.
        """
        if isinstance(after, LoginRefusedError | QueueRefusedError):
            self._absent.clear()
        if isinstance(after, LoginRefusedError) and self._login:
            self._refused_logins.add(self._login)
        self._introduce()
        subscription = self._subscribe()
        self._login = subscription.login
        return subscription

    def ping(self) -> None:
        """Send a health ping; Waldur shows an agent as idle after ten minutes without one.

        Raises:
            SiteAgentError: Waldur did not accept it.
        """
        if self._service is None:
            self._waldur.offering(self._uuid)
            return
        try:
            self._beat(self._service)
        except NotFoundError:
            self._identity = self._service = None
            self._introduce()

    def _subscribe(self) -> Subscription:
        if self._offering.mqtt_enabled:
            if not self._login:
                self._warn_of_servers_without_mqtt()
            return self._per_type()
        if self._identity is not None and "register_queue" not in self._absent:
            try:
                return self._unified(self._identity)
            except AbsentOperationError:
                self._absent.add("register_queue")
        return self._per_type()

    # The agent's identity

    def _introduce(self) -> None:
        """Register the agent's identity, service and processor, if the server supports them."""
        if "identities" in self._absent:
            return
        try:
            if self._identity is None:
                self._identity = self._identify()
            service = self._waldur.register_service(self._identity, SERVICE, SERVICE)
            self._service = service.uuid
            self._beat(service.uuid)
        except AbsentOperationError:
            self._absent.add("identities")
        except NotFoundError:  # removed by somebody: created again next time
            self._identity = self._service = None
        except AccessDeniedError as error:
            self._absent.add("identities")
            self._log.warning(
                "no permission to register the agent's identity in Waldur; continuing without it",
                reason=str(error),
                remedy="grant the token's user OFFERING.UPDATE on the offering",
            )

    def _identify(self) -> UUID:
        name = identity_name(self._offering)
        known = self._waldur.identities(self._uuid, name).items
        if not known:
            made = self._waldur.create_identity(
                self._uuid, name, __version__, last_restarted=self._began
            )
            return made.uuid
        updated = self._waldur.update_identity(
            known[0].uuid, self._uuid, name, __version__, last_restarted=self._began
        )
        return updated.uuid

    def _beat(self, service: UUID) -> None:
        backends = {self._offering.backend_for(job) for job in (Job.ORDERS, Job.MEMBERSHIP)}
        name = ", ".join(sorted(backends - {""}))
        self._waldur.register_processor(service, name, name)

    # One queue for all (servers from 8.1)

    def _unified(self, identity: UUID) -> Subscription:
        types = object_types_of(self._offering)
        try:
            try:
                found = self._waldur.register_queue(identity, [*types, OFFERING_RESOURCES_SYNC])
            except (AbsentOperationError, ConflictError, AccessDeniedError):
                raise
            except PermanentError:  # a type that this server does not support yet
                found = self._waldur.register_queue(identity, types)
        except ConflictError as error:
            raise TemporaryError(
                f'the events of offering "{self._offering.name}" belong to another Waldur user: '
                f"{error}; use that user's token here, or delete the agent identity "
                f"agent-{self._uuid.hex} in Waldur"
            ) from error
        return Subscription(
            vhost=found.vhost,
            login=found.rmq_username,
            password=self._offering.token,
            queues=(found.queue_name,),
            declared=True,
        )

    # A queue, or a topic, for each type

    def _per_type(self) -> Subscription:
        login, vhost, queues, declared = "", "", [], True
        for object_type in object_types_of(self._offering):
            try:
                subscription = self._subscription(object_type, may_refuse=bool(login))
                name, host = self._queue(subscription, object_type)
            except (AbsentOperationError, AccessDeniedError, ConflictError):
                raise
            except PermanentError as error:
                self._log.warning(
                    "Waldur does not send events of this type; relying on full passes",
                    type=object_type,
                    reason=str(error),
                )
                continue
            # any login of the user's virtual host can read all of its queues
            login, vhost = login or subscription.uuid.hex, vhost or host
            queues.append(name)
            declared = "create_queue" not in self._absent
        if not queues:
            raise PermanentError(
                f'Waldur sends no events for offering "{self._offering.name}"',
                remedy="see the warnings above, or set stomp_enabled and mqtt_enabled to false",
            )
        return Subscription(
            vhost=vhost,
            login=login,
            password=self._offering.token,
            queues=tuple(queues),
            declared=declared,
        )

    def _subscription(self, object_type: str, *, may_refuse: bool) -> EventSubscription:
        """The user's subscription for a type, with a login that was not refused.

        The password of a login is the user's token at the time it was created, for good. So after a
        change of token an old subscription cannot be used to log in, but its queue can be read with
        another login.
        """
        found = self._registered(object_type)
        if found is not None and (may_refuse or found.uuid.hex not in self._refused_logins):
            return found
        mine = self._waldur.event_subscriptions(self._waldur.whoami().uuid).items
        known = [one for one in reversed(mine) if one.object_types == (object_type,)]
        usable = [o for o in known if may_refuse or o.uuid.hex not in self._refused_logins]
        if known and not usable and time.monotonic() < self._new_login_after:
            self._refused_logins.clear()
            return known[0]
        if usable:
            return usable[0]
        if known:
            self._new_login_after = time.monotonic() + _NEW_LOGIN_SECONDS
        return self._waldur.create_event_subscription(_DESCRIPTION, [object_type])

    def _registered(self, object_type: str) -> EventSubscription | None:
        if self._identity is None or "register_event_subscription" in self._absent:
            return None
        try:
            return self._waldur.register_event_subscription(
                self._identity, object_type, _DESCRIPTION
            )
        except AbsentOperationError:
            self._absent.add("register_event_subscription")
            return None

    def _queue(self, subscription: EventSubscription, object_type: str) -> tuple[str, str]:
        """The queue of a subscription for a type, and its virtual host."""
        user = subscription.user_uuid or self._waldur.whoami().uuid
        if self._offering.mqtt_enabled:
            return (
                f"subscription/{subscription.uuid.hex}/offering/{self._uuid.hex}/{object_type}",
                user.hex,
            )
        if "create_queue" not in self._absent:
            try:
                made = self._waldur.create_queue(subscription.uuid, self._uuid, object_type)
            except AbsentOperationError:
                self._absent.add("create_queue")
            else:
                return made.queue_name, made.vhost or user.hex
        name = f"subscription_{subscription.uuid.hex}_offering_{self._uuid.hex}_{object_type}"
        return name, user.hex

    def _warn_of_servers_without_mqtt(self) -> None:
        """Warn if the server no longer publishes over MQTT; a failure to find out is ignored."""
        try:
            makes_queues = self._waldur.makes_event_queues()
        except PermanentError:
            return
        if makes_queues:
            self._log.warning(
                "this Waldur no longer publishes events over MQTT; relying on full passes",
                remedy="set mqtt_enabled to false and stomp_enabled to true",
            )
