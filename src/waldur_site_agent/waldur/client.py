"""The gateway's face: one method for each thing that the agent asks of Waldur."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from waldur_site_agent import __version__
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.waldur import operations as ops
from waldur_site_agent.waldur.address import ApiAddress
from waldur_site_agent.waldur.bodies import component_body, number, uuid_text
from waldur_site_agent.waldur.connection import Call, Connection, without_cookies
from waldur_site_agent.waldur.decoding import bad_answer, decode, read_json, read_rows
from waldur_site_agent.waldur.errors import BodyRefusedError
from waldur_site_agent.waldur.listing import PAGE_SIZE, Listing, matching, read_pages
from waldur_site_agent.waldur.patience import RetryPolicy, Timeouts

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection, Iterable, Mapping
    from decimal import Decimal
    from types import TracebackType
    from typing import Self
    from uuid import UUID

    from waldur_site_agent.model.offerings import ServiceProvider, WaldurComponent, WaldurOffering
    from waldur_site_agent.model.orders import Order, Resource
    from waldur_site_agent.model.people import OfferingUser, ProjectRole, TeamMember, User
    from waldur_site_agent.waldur.connection import QueryValue
    from waldur_site_agent.waldur.operation import Operation

Answer = TypeVar("Answer")


class Waldur:
    """Waldur's REST API at one server with one token; threads may share it.

    Every method raises ``TemporaryError`` when Waldur cannot be asked or answers badly, and
    ``PermanentError`` when it refuses; :mod:`waldur_site_agent.waldur.errors` has the kinds.
    UUIDs may be given as text, with or without dashes.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        *,
        mode: str = "agent",
        verify: bool | str = True,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare the conversation; nothing is sent yet.

        Args:
            api_url: Waldur's API, with or without ``/api`` and the trailing slash.
            token: The API token of the agent's user.
            mode: The agent's mode; the server shows it in its log, and knows the agent by it.
            verify: Whether the server's certificate is checked, or a file or directory of
                certificate authorities to check it against.
            timeouts: Seconds for the phases of one attempt.
            retry: How often a failed request is sent again, and when.
            transport: Stands in for the network in tests.
            sleep: Waits for so many seconds; may raise to end the waiting.

        Raises:
            PermanentError: The URL, the token or the authorities cannot be used.
        """
        timeouts = timeouts or Timeouts()
        address = ApiAddress.parse(api_url)
        client = httpx.Client(
            headers={
                "User-Agent": f"waldur-site-agent-{mode}/{__version__}",
                "Accept": "application/json",
            },
            cookies=without_cookies(),
            verify=_trust(verify),
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect),
            transport=transport,
        )
        self._mode = mode
        self._connection = Connection(
            address, client, token=token.strip(), retry=retry or RetryPolicy(), sleep=sleep
        )

    def __repr__(self) -> str:
        return f"Waldur({self.base_url!r}, mode={self._mode!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the object is not usable afterwards."""
        self._connection.close()

    @property
    def base_url(self) -> str:
        """The API's URL in its normal form, such as ``https://waldur.example.com/api/``."""
        return self._connection.address.url

    @property
    def request_counts(self) -> Counter[tuple[str, int | str]]:
        """How many requests were sent, by (operation id, HTTP status or ``"error"``)."""
        return self._connection.request_counts

    @property
    def requests_made(self) -> int:
        """How many requests were sent, repetitions and redirects included."""
        return self.request_counts.total()

    # Server and user

    def whoami(self) -> User:
        """The user whose token this is, with its roles."""
        return self._read(ops.ME)

    def server_version(self) -> str:
        """The version of the server, as it spells it."""
        return self._read(ops.VERSION).version

    # Offering

    def offering(self, uuid: UUID | str) -> WaldurOffering:
        """An offering with its components."""
        return self._read(ops.OFFERING, uuid)

    def create_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Add a component to an offering; values that it leaves empty are Waldur's to choose."""
        self._write(ops.CREATE_COMPONENT, offering_uuid, component_body(component))

    def update_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Change a component, found by its own UUID; what it leaves empty stays as it is."""
        if component.uuid is None:
            raise ValueError(f"component {component.type!r} was not read from Waldur: no UUID")
        body = {"uuid": component.uuid.hex, **component_body(component)}
        self._write(ops.UPDATE_COMPONENT, offering_uuid, body)

    # Orders

    def orders(self, offering_uuid: UUID | str, states: Iterable[str]) -> Listing[Order]:
        """The orders of an offering in these states, oldest first."""
        return self._list(
            ops.ORDERS,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            state=[*states],
        )

    def order(self, uuid: UUID | str) -> Order:
        """One order as it is now."""
        return self._read(ops.ORDER, uuid)

    def approve_order(self, uuid: UUID | str) -> None:
        """Approve an order that is pending on the provider; a second approval is a conflict.

        The order is executing afterwards, or waits for its start date: read it again.
        """
        call = Call.of(ops.APPROVE_ORDER, uuid=uuid_text(uuid))
        try:
            self._connection.send(call)
        except BodyRefusedError:
            self._connection.send(call.without_body())

    def reject_order(self, uuid: UUID | str, comment: str = "") -> None:
        """Reject an order that is pending on the provider; servers before 8 drop the comment."""
        body = {"provider_rejection_comment": comment} if comment else {}
        self._write(ops.REJECT_ORDER, uuid, body)

    def complete_order(self, uuid: UUID | str) -> None:
        """Mark an executing order as done."""
        self._write(ops.COMPLETE_ORDER, uuid)

    def fail_order(self, uuid: UUID | str, message: str, traceback: str = "") -> None:
        """Mark an order as erred. Waldur does not look at its state: read it before."""
        # Servers index both keys: leaving one out is answered with HTTP 500.
        self._write(ops.FAIL_ORDER, uuid, {"error_message": message, "error_traceback": traceback})

    def set_order_backend_id(self, uuid: UUID | str, backend_id: str) -> None:
        """Note an identifier of ours on an order; absent before server 7.8.5."""
        self._write(ops.SET_ORDER_BACKEND_ID, uuid, {"backend_id": backend_id})

    # Resources

    def resources(
        self,
        offering_uuid: UUID | str,
        states: Iterable[str] = ResourceState.ALIVE,
        *,
        with_order_in_progress: bool = False,
    ) -> Listing[Resource]:
        """The resources of an offering in these states, oldest first.

        ``with_order_in_progress`` asks for the order under way too, which makes the answer large.
        """
        return self._list(
            ops.RESOURCES,
            uuid_text(offering_uuid),
            without=() if with_order_in_progress else ("order_in_progress",),
            offering_uuid=uuid_text(offering_uuid),
            state=[*states],
        )

    def resources_named(
        self, backend_id: str, states: Iterable[str] = ResourceState.ALIVE
    ) -> Listing[Resource]:
        """The resources of this very backend id in all offerings that the token's user sees."""
        return self._list(
            ops.RESOURCES_NAMED,
            without=("order_in_progress",),
            backend_id=backend_id,
            state=[*states],
        )

    def resource(self, uuid: UUID | str) -> Resource:
        """One resource as it is now, with the order under way."""
        return self._read(ops.RESOURCE, uuid)

    def team(self, resource_uuid: UUID | str) -> tuple[TeamMember, ...]:
        """The people with a role in the resource's project; ended roles are left out.

        Raises:
            TemporaryError: Also when the server says that there are more than it sent.
        """
        call = Call.of(ops.TEAM, uuid=uuid_text(resource_uuid))
        response = self._connection.send(call)
        rows = read_rows(response)
        total = response.headers.get("x-result-count", "")
        if total.isdigit() and int(total) != len(rows):
            raise bad_answer(response, f"{len(rows)} of {total} members arrived")
        members = [decode(ops.TEAM, row, response, f"row {n}") for n, row in enumerate(rows, 1)]
        return tuple(m for m in members if not _has_ended(m.expiration_time))

    def set_backend_id(self, resource_uuid: UUID | str, backend_id: str) -> None:
        """Tell Waldur the resource's name in the backend."""
        self._write(ops.SET_BACKEND_ID, resource_uuid, {"backend_id": backend_id})

    def set_limits(self, resource_uuid: UUID | str, limits: Mapping[str, Decimal]) -> None:
        """Replace all limits of a resource, in Waldur's measured units.

        Only keys of limit components may be there: others break later orders of the resource.
        """
        numbers = {component: number(limit) for component, limit in limits.items()}
        self._write(ops.SET_LIMITS, resource_uuid, {"limits": numbers})

    def set_backend_metadata(self, resource_uuid: UUID | str, metadata: Mapping[str, Any]) -> None:
        """Replace the backend metadata of a resource, whole."""
        self._write(ops.SET_BACKEND_METADATA, resource_uuid, {"backend_metadata": dict(metadata)})

    def refresh_last_sync(self, resource_uuid: UUID | str) -> None:
        """Note on the resource that it was compared with the backend just now."""
        self._write(ops.REFRESH_LAST_SYNC, resource_uuid)

    def set_as_ok(self, resource_uuid: UUID | str) -> None:
        """Mark a resource as OK, whatever it was before; a terminated one is refused."""
        self._write(ops.SET_AS_OK, resource_uuid)

    def set_as_erred(self, resource_uuid: UUID | str, message: str) -> None:
        """Mark a resource as erred, for its owner too."""
        body = {"error_message": message, "error_traceback": ""}
        self._write(ops.SET_AS_ERRED, resource_uuid, body)

    # People

    def service_providers(self, customer_uuid: UUID | str) -> Listing[ServiceProvider]:
        """The service provider that a customer is: one, or none."""
        return self._list(
            ops.SERVICE_PROVIDERS, uuid_text(customer_uuid), customer_uuid=uuid_text(customer_uuid)
        )

    def project_roles(self, service_provider_uuid: UUID | str) -> Listing[ProjectRole]:
        """The active roles in all projects that have a resource of this provider.

        A project that is missing may have resources of unshared offerings only: ask for the team
        of a resource before concluding that nobody is in it. Roles past their end are left out.
        """
        listing = self._list(ops.PROJECT_ROLES, uuid_text(service_provider_uuid), is_active=True)
        return Listing(
            items=tuple(role for role in listing.items if not _has_ended(role.expiration_time)),
            total=listing.total,
            complete=listing.complete,
            received=listing.received,
        )

    def offering_users(self, offering_uuid: UUID | str) -> Listing[OfferingUser]:
        """The usernames of an offering, in every state."""
        return self._list(
            ops.OFFERING_USERS, uuid_text(offering_uuid), offering_uuid=uuid_text(offering_uuid)
        )

    # How it is asked

    def _read(self, operation: Operation[Answer], uuid: UUID | str | None = None) -> Answer:
        query: dict[str, QueryValue] = {}
        if operation.asked_fields:
            query["field"] = operation.asked_fields
        call = Call.of(operation, uuid="" if uuid is None else uuid_text(uuid), query=query)
        response = self._connection.send(call)
        return decode(operation, read_json(response), response)

    def _list(
        self,
        operation: Operation[Answer],
        uuid: str = "",
        *,
        without: Collection[str] = (),
        **filters: QueryValue,
    ) -> Listing[Answer]:
        query: dict[str, QueryValue] = {
            **filters,
            "field": [name for name in operation.asked_fields if name not in without],
            "o": operation.ordered_by or "",
            "page_size": PAGE_SIZE,
        }
        raw = read_pages(
            lambda page: self._connection.send(
                Call.of(operation, uuid=uuid, query={**query, "page": page})
            )
        )
        wanted = {
            name: {value} if isinstance(value, str) else {*value}
            for name, value in filters.items()
            if not isinstance(value, int)
        }
        return Listing(
            items=tuple(
                decode(operation, row, raw.answer, f"row {number}")
                for number, row in matching(raw.rows, wanted)
            ),
            total=raw.total,
            complete=raw.complete,
            received=raw.received,
        )

    def _write(
        self,
        operation: Operation[None],
        uuid: UUID | str,
        body: Mapping[str, object] | None = None,
    ) -> None:
        self._connection.send(Call.of(operation, uuid=uuid_text(uuid), body=body))


def _has_ended(expiration_time: datetime | None) -> bool:
    """Whether a role's end has passed; the server's clean-up may come hours later."""
    if expiration_time is None:
        return False
    if expiration_time.tzinfo is None:
        expiration_time = expiration_time.replace(tzinfo=UTC)
    return expiration_time <= datetime.now(UTC)


def _trust(verify: bool | str) -> bool | ssl.SSLContext:
    if isinstance(verify, bool):
        return verify
    authorities = Path(verify)
    try:
        if authorities.is_dir():
            return ssl.create_default_context(capath=authorities)
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise PermanentError(
            f"the certificate authorities {verify!r} cannot be used ({error}); "
            "verify_ssl takes true, false, or a file or directory of PEM certificates"
        ) from error
