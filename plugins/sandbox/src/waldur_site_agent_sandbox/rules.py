"""Who may see and change what, and the rules and effects of orders and usage reports."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation

from pydantic import JsonValue

from waldur_site_agent_sandbox import states
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.http import (
    RefusedError,
    denied,
    invalid,
    not_authenticated,
    wrong_state,
)
from waldur_site_agent_sandbox.records import (
    ComponentUsage,
    Customer,
    JsonObject,
    Offering,
    Order,
    Project,
    Resource,
    Role,
    User,
    UserUsage,
)
from waldur_site_agent_sandbox.states import new_slug
from waldur_site_agent_sandbox.store import Transaction, World


class Sessions:
    """Last use of each token. Not part of the world, because a request does not change it."""

    def __init__(self) -> None:
        self._last_seen: dict[str, datetime] = {}
        self._expired: set[str] = set()
        self.introspect: Callable[[str], str | None] | None = None
        """Ask the identity provider whose access token this is; ``None``: nobody's."""

    def authenticate(self, tx: Transaction, header: str) -> User:
        """Return the user whose token is in an Authorization header.

        Raises:
            RefusedError: 401 with the reason.
        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and self.introspect is not None:
            return self._of_access_token(tx, token.strip())
        if scheme.lower() != "token":
            raise not_authenticated("Authentication credentials were not provided.")
        if not token.strip():
            raise not_authenticated("Invalid token header. No credentials provided.")
        for user in tx.world.users.values():
            if user.token and user.token == token.strip():
                self._admit(user, tx.now)
                return user
        raise not_authenticated("Invalid token.")

    def _of_access_token(self, tx: Transaction, token: str) -> User:
        username = self.introspect(token) if self.introspect is not None and token else None
        found = [user for user in tx.world.users.values() if user.username == username]
        if username is None or not found:
            raise not_authenticated("Invalid token.")
        if not found[0].is_active:
            raise not_authenticated("User inactive or deleted.")
        return found[0]

    def expire(self, user: User) -> None:
        """Expire a user's token."""
        self._expired.add(user.uuid)

    def renew(self, user: User) -> None:
        """Reset the age of a user's token."""
        self._expired.discard(user.uuid)
        self._last_seen.pop(user.uuid, None)

    def _admit(self, user: User, now: datetime) -> None:
        if not user.is_active:
            raise not_authenticated("User inactive or deleted.")
        last_seen = self._last_seen.get(user.uuid, now)
        if user.token_lifetime is not None:
            silence = now - last_seen
            if silence > timedelta(seconds=user.token_lifetime):
                self._expired.add(user.uuid)
        if user.uuid in self._expired:
            raise not_authenticated("Token has expired.")
        self._last_seen[user.uuid] = now


APPROVE_ORDER = "ORDER.APPROVE"
REJECT_ORDER = "ORDER.REJECT"
SET_STATE = "RESOURCE.SET_STATE"
SET_BACKEND_ID = "RESOURCE.SET_BACKEND_ID"
SET_BACKEND_METADATA = "RESOURCE.SET_BACKEND_METADATA"
SET_USAGE = "RESOURCE.SET_USAGE"
UPDATE_COMPONENTS = "OFFERING.UPDATE_COMPONENTS"
UPDATE_USER = "OFFERING.UPDATE_USER"
CREATE_OFFERING = "OFFERING.CREATE"
MANAGE_BACKEND_RESOURCES = "OFFERING.MANAGE_BACKEND_RESOURCES"
LIST_PROJECTS = "SERVICE_PROVIDER.LIST_PROJECTS"
LIST_PROJECT_PERMISSIONS = "SERVICE_PROVIDER.LIST_PROJECT_PERMISSIONS"

CUSTOMER = frozenset({"customer"})
OFFERING_OR_CUSTOMER = frozenset({"offering", "customer"})

_PROVIDER_RIGHTS = frozenset(
    {
        APPROVE_ORDER,
        REJECT_ORDER,
        SET_STATE,
        SET_BACKEND_ID,
        SET_BACKEND_METADATA,
        SET_USAGE,
        UPDATE_COMPONENTS,
        UPDATE_USER,
        CREATE_OFFERING,
        MANAGE_BACKEND_RESOURCES,
        LIST_PROJECTS,
        LIST_PROJECT_PERMISSIONS,
    }
)
_CUSTOMER_MANAGER_RIGHTS = _PROVIDER_RIGHTS - {APPROVE_ORDER, REJECT_ORDER, SET_USAGE}
_OFFERING_MANAGER_RIGHTS = frozenset({SET_BACKEND_ID, SET_BACKEND_METADATA, SET_USAGE})
_LATER_OFFERING_MANAGER_RIGHTS = frozenset({SET_STATE, MANAGE_BACKEND_RESOURCES})


def rights_of(role: str, generation: Generation) -> frozenset[str]:
    """The permissions of a role on its scope; project roles have none here."""
    if role == "CUSTOMER.OWNER":
        return _PROVIDER_RIGHTS
    if role == "CUSTOMER.MANAGER":
        return _CUSTOMER_MANAGER_RIGHTS
    if role == "OFFERING.MANAGER":
        newest = generation.accepts_offering_scope
        later = _LATER_OFFERING_MANAGER_RIGHTS if newest else frozenset()
        return _OFFERING_MANAGER_RIGHTS | later
    return frozenset()


def require(
    tx: Transaction, user: User, right: str, offering: Offering, scopes: frozenset[str] = CUSTOMER
) -> None:
    """Require a permission on the offering or its customer.

    Raises:
        RefusedError: 403.
    """
    allowed = user.is_staff or any(
        right in rights_of(role.name, tx.generation)
        for role in _provider_roles(tx, user, offering)
        if role.scope_type in scopes
    )
    if not allowed:
        raise denied()


@dataclass(frozen=True, slots=True)
class Visibility:
    """What a user may see, determined once for a whole list."""

    world: World
    everything: bool
    scopes: frozenset[str]

    def as_provider(self, offering: str) -> bool:
        """Return whether the user has any role on an offering or its provider."""
        customer = self.world.offerings[offering].customer
        return self.everything or offering in self.scopes or customer in self.scopes

    def as_consumer(self, project: str) -> bool:
        """Return whether the user has any role in a project or its organization."""
        customer = self.world.projects[project].customer
        return self.everything or project in self.scopes or customer in self.scopes


def visibility_of(tx: Transaction, user: User) -> Visibility:
    """Determine what a user may see."""
    scopes = frozenset(role.scope for role in roles_of(tx, user))
    return Visibility(tx.world, user.is_staff, scopes)


def roles_of(tx: Transaction, user: User) -> Iterator[Role]:
    """Yield a user's active roles."""
    return (role for role in tx.world.active_roles(tx.now) if role.user == user.uuid)


def has_role_on(tx: Transaction, user: User, customer: Customer) -> bool:
    """Return whether the user has any role on an organization itself."""
    return user.is_staff or any(role.scope == customer.uuid for role in roles_of(tx, user))


def _provider_roles(tx: Transaction, user: User, offering: Offering) -> Iterator[Role]:
    scopes = {offering.uuid, offering.customer}
    return (role for role in roles_of(tx, user) if role.scope in scopes)


def place_create(
    tx: Transaction,
    offering: Offering,
    project: Project,
    name: str,
    *,
    limits: JsonObject,
    attributes: JsonObject,
    start_date: date | None,
    end_date: date | None,
    plan: str,
    state: str,
) -> Order:
    """Order a new resource, which is created in state Creating.

    Raises:
        RefusedError: 400 for a limit that the offering does not have, where what is paid in
            advance has no end date, or one that the offering does not sell, and once the project
            has ended.
    """
    _check_limits(offering, limits)
    if offering.prepaid:
        _check_term(offering, tx.now.date(), end_date)
    resource = Resource(
        uuid=tx.new_uuid(),
        created=tx.now,
        modified=tx.now,
        name=name,
        slug=new_slug(name, (row.slug for row in tx.world.resources.values())),
        offering=offering.uuid,
        project=project.uuid,
        state="Creating",
        limits=limits,
        attributes={"name": name, **attributes},
        plan=plan,
        end_date=end_date,
    )
    tx.world.put(resource)
    return _place(tx, resource, "Create", state, limits, resource.attributes, start_date)


def months_between(start: date, end: date) -> int:
    """Count months as Waldur charges them: a part of one counts whole, and at least one does."""
    months = (end.year - start.year) * 12 + end.month - start.month
    return max(1, months + (1 if end.day > start.day else 0))


def _check_term(offering: Offering, start: date, end: date | None) -> None:
    if end is None:
        raise invalid({"end_date": ["End date is required for prepaid components."]})
    months = months_between(start, end)
    for each in offering.prepaid:
        low, high = each.min_prepaid_duration, each.max_prepaid_duration
        step = each.prepaid_duration_step or 1
        if (
            (low is not None and months < low)
            or (high is not None and months > high)
            or (months - (low or 0)) % step
        ):
            raise invalid({"end_date": [f"{months} months cannot be ordered of {each.name}."]})


def renewal_problem(offering: Offering, months: int) -> str:
    """Return why a resource cannot be renewed for so many months; the order errs by it."""
    for each in offering.prepaid:
        low, high = each.min_renewal_duration, each.max_renewal_duration
        step, of = each.renewal_duration_step or 1, f"for component '{each.name}'"
        if low is not None and months < low:
            return f"Renewal of {months} months is less than the minimum of {low} months {of}."
        if high is not None and months > high:
            return f"Renewal of {months} months exceeds the maximum of {high} months {of}."
        if (months - (low or 0)) % step:
            return f"Renewal of {months} months is not a valid step {of}."
    return ""


def _later(day: date, months: int) -> date:
    """Return the same day some months later, or the last one of a shorter month."""
    number = day.month - 1 + months
    year, month = day.year + number // 12, number % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def place_renewal(
    tx: Transaction,
    resource: Resource,
    months: int,
    limits: JsonObject | None,
    *,
    state: str,
    extends_when: str,
) -> Order:
    """Order further months of a prepaid resource, with other limits for all of them or the same.

    Raises:
        RefusedError: 409 where the resource is not OK; 400 where another order is open, for a
            limit that the offering does not have, or once the project has ended.
    """
    _check_is_free(tx, resource, "OK")
    offering = tx.world.offerings[resource.offering]
    limits = resource.limits if limits is None else limits
    _check_limits(offering, limits)
    end = _later(resource.end_date or tx.now.date(), months)
    attributes: JsonObject = {
        "action": "renew",
        "extension_months": months,
        "old_limits": resource.limits,
        "old_end_date": None if resource.end_date is None else resource.end_date.isoformat(),
        "new_end_date": end.isoformat(),
    }
    order = _place(tx, resource, "Update", state, limits, attributes, None)
    problem = renewal_problem(offering, months)
    order = replace(order, extends_when=extends_when, fails_at_approval=problem)
    return tx.world.put(order)


def end_expired(tx: Transaction) -> list[Order]:
    """Do Waldur's daily task: order the end of every resource whose day, or project's, has come."""
    return [
        place_terminate(tx, resource, attributes={}, state="executing")
        for resource in list(tx.world.resources.values())
        if resource.state in {"OK", "Erred"} and not tx.world.order_in_progress(resource.uuid)
        for ends in ((resource.end_date, tx.world.projects[resource.project].end_date),)
        if any(day is not None and day <= tx.now.date() for day in ends)
    ]


def place_update(
    tx: Transaction,
    resource: Resource,
    limits: JsonObject,
    *,
    attributes: JsonObject,
    start_date: date | None,
    plan: str,
    state: str,
) -> Order:
    """Order new limits, or another plan. The resource keeps the old ones until the order is done.

    Raises:
        RefusedError: 409 where the resource is not OK; 400 where another order is open, where
            nothing would change, for a limit that the offering does not have, or once the
            project has ended.
    """
    _check_is_free(tx, resource, "OK")
    _check_limits(tx.world.offerings[resource.offering], limits)
    if limits == resource.limits and not (plan or "new_options" in attributes):
        raise invalid(["New limits are the same as the current ones."])
    old: JsonObject = {"old_limits": resource.limits} if limits else {}
    order = _place(tx, resource, "Update", state, limits, {**old, **attributes}, start_date)
    return tx.world.put(replace(order, plan=plan)) if plan else order


def place_terminate(
    tx: Transaction, resource: Resource, *, attributes: JsonObject, state: str
) -> Order:
    """Order the termination of a resource.

    Raises:
        RefusedError: 409 where it is neither OK nor Erred; 400 where another order is open.
    """
    _check_is_free(tx, resource, "OK", "Erred")
    return _place(tx, resource, "Terminate", state, {}, attributes, None)


def _check_is_free(tx: Transaction, resource: Resource, *valid: str) -> None:
    if resource.state not in valid:
        raise wrong_state(*valid)
    if tx.world.order_in_progress(resource.uuid):
        raise states.pending_order_exists()


def place_restore(tx: Transaction, resource: Resource, *, state: str) -> Order:
    """Order a terminated resource back; it is Creating from now on.

    Raises:
        RefusedError: 409 where it is not Terminated; 400 where the offering does not allow it,
            or once the project has ended.
    """
    if resource.state != "Terminated":
        raise wrong_state("Terminated")
    if not tx.world.offerings[resource.offering].plugin_options.get("can_restore_resource"):
        raise invalid(["Restoring resources is not allowed by the offering."])
    resource = states.set_resource(tx, resource, state="Creating")
    return _place(tx, resource, "Restore", state, {}, {}, None)


def approve_as_consumer(tx: Transaction, order: Order) -> Order:
    """Approve an order, which passes it on to the provider.

    Raises:
        RefusedError: 409 where it is not waiting for that; 400 once the project has ended.
    """
    states.require_live_project(tx, tx.world.projects[order.project])
    if order.state != "pending-consumer":
        raise wrong_state("pending-consumer")
    return _show_provider(tx, states.set_order(tx, order, state="pending-provider"))


def withdraw(tx: Transaction, order: Order) -> None:
    """Delete a pending order; its resource stays as it is.

    Raises:
        RefusedError: 409 where it is too late.
    """
    if not order.state.startswith("pending-"):
        raise wrong_state("pending-consumer", "pending-provider")
    tx.world.remove(order)


def _place(
    tx: Transaction,
    resource: Resource,
    kind: str,
    state: str,
    limits: JsonObject,
    attributes: JsonObject,
    start_date: date | None,
) -> Order:
    if kind != "Terminate":
        states.require_live_project(tx, tx.world.projects[resource.project])
    order = Order(
        uuid=tx.new_uuid(),
        created=tx.now,
        modified=tx.now,
        type=kind,
        state=state,
        offering=resource.offering,
        project=resource.project,
        resource=resource.uuid,
        limits=limits,
        attributes=attributes,
        plan=resource.plan,
        start_date=start_date,
    )
    tx.world.put(order)
    marks = tx.generation.marks_resource_when_ordered and resource.state != "Erred"
    if marks and kind != "Create":
        tx.world.put(replace(resource, state=states.IN_WORK[kind], modified=tx.now))
    return _show_provider(tx, order)


def _show_provider(tx: Transaction, order: Order) -> Order:
    ready = order.type == "Create" and order.state == "pending-provider"
    if ready and tx.generation.names_members_when_ordered:
        states.enqueue(tx, "name_members", order.resource)
    return order


def _check_limits(offering: Offering, limits: JsonObject) -> None:
    unknown = sorted(set(limits) - offering.limit_types)
    if unknown:
        raise RefusedError(400, {"limits": [f"Invalid components: {', '.join(unknown)}."]})


REPORTABLE_STATES = frozenset({"OK", "Updating", "Terminating"})
"""Resources in these states accept usage reports; erred ones do not."""

_MOST_DIGITS = 20
_DECIMAL_PLACES = 2
_BACKFILL = (
    "Service providers can only specify date for limit-based or prepaid billing components "
    "when backfilling past billing periods."
)


def month_of(moment: datetime) -> date:
    """Return the first day of the billing month of a time, in UTC."""
    return moment.astimezone(UTC).date().replace(day=1)


def amount(given: JsonValue, field: str) -> Decimal:
    """Parse an amount; negative ones are allowed.

    Raises:
        RefusedError: 400 for what is no number, or has too many digits.
    """
    try:
        number = Decimal(str(given))
    except InvalidOperation:
        raise invalid({field: ["A valid number is required."]}) from None
    exponent = number.as_tuple().exponent
    if isinstance(exponent, str):
        raise invalid({field: ["A valid number is required."]})
    if -exponent > _DECIMAL_PLACES:
        text = f"Ensure that there are no more than {_DECIMAL_PLACES} decimal places."
        raise invalid({field: [text]})
    if len(number.as_tuple().digits) + max(exponent, 0) > _MOST_DIGITS:
        text = f"Ensure that there are no more than {_MOST_DIGITS} digits in total."
        raise invalid({field: [text]})
    return number.quantize(Decimal("0.01"))


def moment_of(tx: Transaction, fields: JsonObject) -> datetime | None:
    """Parse ``date``; servers that do not know it use the current time.

    Raises:
        RefusedError: 400 where it is no time.
    """
    given = fields.get("date")
    if given is None or not tx.generation.takes_usage_dates:
        return None
    try:
        moment = datetime.fromisoformat(str(given))
    except ValueError:
        formats = "YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]"
        text = f"Datetime has wrong format. Use one of these formats instead: {formats}."
        raise invalid({"date": [text]}) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def report(
    tx: Transaction,
    resource: Resource,
    items: list[JsonObject],
    moment: datetime | None,
    user: User,
) -> None:
    """Store the usage of a resource in a month; each value replaces the previous one.

    Raises:
        RefusedError: 400, and nothing is stored.
    """
    if resource.state not in REPORTABLE_STATES:
        raise invalid({"resource": ["Resource is not in valid state."]})
    _check_types(tx, resource, [str(item["type"]) for item in items])
    when = moment or tx.now
    if not user.is_staff and month_of(when) < month_of(tx.now):
        _check_backfill(tx, resource, [str(item["type"]) for item in items])
    for item in items:
        before = row_of(tx, resource.uuid, str(item["type"]), month_of(when))
        row = ComponentUsage(
            uuid=before.uuid if before else tx.new_uuid(),
            created=before.created if before else tx.now,
            reported=when,
            resource=resource.uuid,
            component_type=str(item["type"]),
            billing_period=month_of(when),
            usage=amount(item["amount"], "amount"),
            description=str(item.get("description", "")),
            recurring=bool(item.get("recurring")),
            modified_by=user.uuid,
        )
        _check_amount_limit(tx, row)
        tx.world.put(row)
    _refresh_current_usages(tx, resource, items)


def row_of(
    tx: Transaction, resource: str, component_type: str, month: date, plan_period: str = ""
) -> ComponentUsage | None:
    """Return the usage of one component in one month under one plan, if there is one."""
    wanted = (resource, component_type, month, plan_period)
    found = (
        row
        for row in tx.world.component_usages.values()
        if (row.resource, row.component_type, row.billing_period, row.plan_period) == wanted
    )
    return next(found, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedUsage:
    """The reported usage of one person."""

    username: str
    usage: Decimal
    account: str = ""
    """The offering user, if the report has one."""
    moment: datetime | None = None
    """A time in the month, if the report has one; the default is the month of the anchor."""


def report_users(
    tx: Transaction, anchor: ComponentUsage, parts: list[ReportedUsage], user: User
) -> None:
    """Store the usage of some users; each value replaces the user's previous one.

    The account of the first report is kept. Newer servers replace a total of zero by the sum.

    Raises:
        RefusedError: 400, and nothing is stored.
    """
    by_parent: dict[str, dict[str, UserUsage]] = {}
    for part in parts:
        parent = _parent(tx, anchor, part.moment)
        past = part.moment is not None and parent.billing_period < month_of(tx.now)
        if past and not user.is_staff:
            _check_backfill(tx, tx.world.resources[parent.resource], [parent.component_type])
        if parent.uuid not in by_parent:
            by_parent[parent.uuid] = {row.username: row for row in user_rows(tx, parent)}
        rows = by_parent[parent.uuid]
        rows[part.username] = _part(tx, parent, rows.get(part.username), part)
        tx.world.put(rows[part.username])
    for uuid in by_parent:
        _raise_empty_total(tx, tx.world.component_usages[uuid])


def _part(
    tx: Transaction, parent: ComponentUsage, before: UserUsage | None, part: ReportedUsage
) -> UserUsage:
    if before:
        return replace(before, usage=part.usage, modified=tx.now)
    return UserUsage(
        uuid=tx.new_uuid(),
        created=tx.now,
        modified=tx.now,
        component_usage=parent.uuid,
        username=part.username,
        usage=part.usage,
        account=part.account,
    )


def user_rows(tx: Transaction, parent: ComponentUsage) -> list[UserUsage]:
    """Return the users' shares of a component usage."""
    return [row for row in tx.world.user_usages.values() if row.component_usage == parent.uuid]


def _parent(tx: Transaction, anchor: ComponentUsage, moment: datetime | None) -> ComponentUsage:
    """Return the row of the month in a report; without a month, the row in the call's path."""
    if moment is None or month_of(moment) == anchor.billing_period:
        return anchor
    month = month_of(moment)
    found = row_of(tx, anchor.resource, anchor.component_type, month, anchor.plan_period)
    if found is None:
        found = replace(
            anchor,
            uuid=tx.new_uuid(),
            created=tx.now,
            reported=moment,
            billing_period=month,
            usage=Decimal("0.00"),
        )
        tx.world.put(found)
    return found


def _raise_empty_total(tx: Transaction, parent: ComponentUsage) -> None:
    if parent.usage or not tx.generation.raises_empty_totals:
        return
    total = sum((row.usage for row in user_rows(tx, parent)), Decimal("0.00"))
    tx.world.put(replace(parent, usage=total))


def _check_types(tx: Transaction, resource: Resource, types: list[str]) -> None:
    components = tx.world.offerings[resource.offering].components
    counts_prepaid = tx.generation.counts_prepaid
    known = {
        each.type
        for each in components
        if each.billing_type in {"usage", "limit"} or (counts_prepaid and each.has_limits)
    }
    unknown = sorted(set(types) - known)
    if unknown:
        text = f"These components are invalid: {', '.join(unknown)}."
        raise invalid({"non_field_errors": [text]})


def _check_amount_limit(tx: Transaction, row: ComponentUsage) -> None:
    """Check the usage of a period against the component's limit amount."""
    offering = tx.world.offerings[tx.world.resources[row.resource].offering]
    component = next(each for each in offering.components if each.type == row.component_type)
    if component.limit_amount is None or component.limit_period is None:
        return
    months = {"month": row.billing_period, "annual": row.billing_period.replace(month=1)}
    since = months.get(component.limit_period)
    months_before = (
        each.usage
        for each in tx.world.component_usages.values()
        if (each.resource, each.component_type) == (row.resource, row.component_type)
        and each.uuid != row.uuid
        and (since is None or since <= each.billing_period <= row.billing_period)
    )
    total = sum(months_before, row.usage)
    if total > Decimal(str(component.limit_amount)):
        text = f"Total amount exceeds limit. Total amount: {total}"
        raise invalid([f"{text}, limit: {component.limit_amount}."])


def _check_backfill(tx: Transaction, resource: Resource, types: list[str]) -> None:
    components = tx.world.offerings[resource.offering].components
    by_usage = {each.type for each in components if each.billing_type == "usage"}
    if by_usage.intersection(types):
        raise invalid({"date": [_BACKFILL]})


def _refresh_current_usages(tx: Transaction, resource: Resource, items: list[JsonObject]) -> None:
    """Update the usage that the portal shows; old servers show only the last report."""
    current: JsonObject
    if tx.generation.keeps_current_usages:
        rows = (r for r in tx.world.component_usages.values() if r.resource == resource.uuid)
        by_month = sorted(rows, key=lambda row: row.billing_period)
        current = {row.component_type: float(row.usage) for row in by_month}
    else:
        current = {str(item["type"]): str(item["amount"]) for item in items}
    tx.world.put(replace(resource, current_usages=current))
