"""Waldur's API: event subscriptions and queues, in all three generations."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus

from pydantic import JsonValue
from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules, states
from waldur_site_agent_sandbox.api.agents import identity_of
from waldur_site_agent_sandbox.broker import BrokerTroubleError
from waldur_site_agent_sandbox.http import (
    Call,
    JsonResponse,
    Operation,
    RefusedError,
    as_uuid,
    by_text,
    by_uuid,
    empty_response,
    invalid,
    not_found,
    page_answer,
    select,
)
from waldur_site_agent_sandbox.records import EventConsumer, EventSubscription, SubscriptionQueue

_SUBSCRIPTIONS = "event-subscriptions/"
_QUEUES = "event-subscription-queues/"
_IDENTITIES = "marketplace-site-agent-identities/"


def _broken_broker(error: BrokerTroubleError) -> RefusedError:
    return invalid({"non_field_errors": [f"Unable to talk to RabbitMQ: {error}"]})


def _known_type(call: Call, given: JsonValue, field: str) -> str:
    if given not in call.tx.generation.event_types:
        raise invalid({field: [f'"{given}" is not a valid choice.']})
    return str(given)


def _visible(call: Call, row: EventSubscription) -> bool:
    return call.user.is_staff or row.user == call.user.uuid


def _list(call: Call) -> Response:
    everything = call.tx.world.event_subscriptions.values()
    visible = [row for row in everything if _visible(call, row)]
    users = call.tx.world.users
    rows = select(
        call,
        visible,
        [
            by_uuid("user_uuid", lambda row: row.user),
            by_text("user_username", lambda row, text: users[row.user].username == text),
        ],
    )
    rows.sort(key=lambda row: row.created)
    return page_answer(
        call,
        rows,
        lambda row: rendering.subscription(call.tx, row, call.api),
        offers_fields=False,
    )


def _subscription(call: Call) -> EventSubscription:
    row = call.tx.world.event_subscriptions.get(call.uuid())
    if row is None or not _visible(call, row):
        raise not_found()
    return row


def _retrieve(call: Call) -> Response:
    return JsonResponse(rendering.subscription(call.tx, _subscription(call), call.api))


def _subscribed(call: Call, objects: tuple[JsonValue, ...], description: str) -> EventSubscription:
    """Store a subscription and create its login, with the current token as the password."""
    row = EventSubscription(
        uuid=call.tx.new_uuid(),
        created=call.tx.now,
        modified=call.tx.now,
        user=call.user.uuid,
        observable_objects=objects,
        description=description,
        source_ip="127.0.0.1",
    )
    try:
        call.tx.broker.open_vhost(row.user)
        call.tx.broker.put_login(row.user, row.uuid, call.user.token)
    except BrokerTroubleError as error:
        raise _broken_broker(error) from error
    call.tx.world.put(row)
    return row


def _create(call: Call) -> Response:
    objects = call.fields.get("observable_objects", [])
    if not isinstance(objects, list):
        raise invalid({"observable_objects": ["Expected a list of items."]})
    for each in objects:
        if not isinstance(each, dict) or "object_type" not in each:
            raise invalid({"observable_objects": ["Each object must have an object_type."]})
        _known_type(call, each["object_type"], "observable_objects")
    row = _subscribed(call, tuple(objects), str(call.fields.get("description", "")))
    printed = rendering.subscription(call.tx, row, call.api)
    return JsonResponse(printed, HTTPStatus.CREATED)


def _destroy(call: Call) -> Response:
    """Delete a subscription and its login, and with a user's last one the virtual host."""
    row = _subscription(call)
    for queue in list(call.tx.world.subscription_queues.values()):
        if queue.subscription == row.uuid:
            call.tx.world.remove(queue)
    call.tx.world.remove(row)
    others = (each for each in call.tx.world.event_subscriptions.values() if each.user == row.user)
    try:
        call.tx.broker.delete_login(row.uuid)
        if not any(others):
            call.tx.broker.delete_vhost(row.user)
    except BrokerTroubleError as error:
        raise _broken_broker(error) from error
    return empty_response(HTTPStatus.NO_CONTENT)


def _create_queue(call: Call) -> Response:
    row = _subscription(call)
    given = str(states.required(call.fields, "offering_uuid"))
    kind = _known_type(call, states.required(call.fields, "object_type"), "object_type")
    offering = as_uuid(given)
    if offering is None:
        raise invalid({"offering_uuid": ["Must be a valid UUID."]})
    visibility = rules.visibility_of(call.tx, call.user)
    if offering not in call.tx.world.offerings or not visibility.as_provider(offering):
        raise invalid({"offering_uuid": ["You do not have access to this offering."]})
    wanted = (row.uuid, offering, kind)
    rows = call.tx.world.subscription_queues.values()
    before = next((r for r in rows if (r.subscription, r.offering, r.object_type) == wanted), None)
    queue = before or SubscriptionQueue(
        uuid=call.tx.new_uuid(),
        created=call.tx.now,
        subscription=row.uuid,
        offering=offering,
        object_type=kind,
    )
    try:
        call.tx.broker.put_queue(row.user, queue.name)
    except BrokerTroubleError as error:
        raise _broken_broker(error) from error
    call.tx.world.put(queue)
    printed = rendering.subscription_queue(call.tx, queue, call.api)
    return JsonResponse(printed, HTTPStatus.OK if before else HTTPStatus.CREATED)


def _list_queues(call: Call) -> Response:
    subscriptions = call.tx.world.event_subscriptions
    everything = call.tx.world.subscription_queues.values()
    visible = [row for row in everything if _visible(call, subscriptions[row.subscription])]
    rows = select(
        call,
        visible,
        [
            by_uuid("event_subscription_uuid", lambda row: row.subscription),
            by_uuid("offering_uuid", lambda row: row.offering),
            by_text("object_type", lambda row, text: row.object_type == text),
        ],
    )
    rows.sort(key=lambda row: row.created)
    return page_answer(
        call,
        rows,
        lambda row: rendering.subscription_queue(call.tx, row, call.api),
        offers_fields=False,
    )


def _destroy_queue(call: Call) -> Response:
    queue = call.tx.world.subscription_queues.get(call.uuid())
    if queue is None:
        raise not_found()
    owner = call.tx.world.event_subscriptions[queue.subscription]
    if not _visible(call, owner):
        raise not_found()
    try:
        call.tx.broker.delete_queue(owner.user, queue.name)
    except BrokerTroubleError as error:
        raise _broken_broker(error) from error
    call.tx.world.remove(queue)
    return empty_response(HTTPStatus.NO_CONTENT)


def _register_event_subscription(call: Call) -> Response:
    """Return the user's subscription to one kind of event, shared by all agents and offerings."""
    identity_of(call)
    wanted = states.required(call.fields, "observable_object_type")
    kind = _known_type(call, wanted, "observable_object_type")
    objects: tuple[JsonValue, ...] = ({"object_type": kind},)
    rows = call.tx.world.event_subscriptions.values()
    mine = (row for row in rows if row.user == call.user.uuid)
    before = next((row for row in mine if row.observable_objects == objects), None)
    try:
        stale = before and not call.tx.broker.may_enter(before.user, before.uuid)
    except BrokerTroubleError as error:
        raise _broken_broker(error) from error
    if before and not stale:
        return JsonResponse(rendering.subscription(call.tx, before, call.api))
    if before:
        for queue in list(call.tx.world.subscription_queues.values()):
            if queue.subscription == before.uuid:
                call.tx.world.remove(queue)
        call.tx.world.remove(before)
    row = _subscribed(call, objects, str(call.fields.get("description", "")))
    printed = rendering.subscription(call.tx, row, call.api)
    return JsonResponse(printed, HTTPStatus.CREATED)


def _wanted_types(call: Call) -> tuple[str, ...] | None:
    """Return the kinds of events that a client wants; ``None`` if it does not change them."""
    if "object_types" not in call.fields:
        return None
    given = call.fields["object_types"]
    if not isinstance(given, list):
        raise invalid({"object_types": ["Expected a list of items."]})
    return tuple(_known_type(call, each, "object_types") for each in given)


def _register_queue(call: Call) -> Response:
    """Return an agent's unified queue; each call sets the current token as its password."""
    identity = identity_of(call)
    types = _wanted_types(call)
    rows = call.tx.world.event_consumers.values()
    before = next((row for row in rows if row.identity == identity.uuid), None)
    if before and before.user != call.user.uuid:
        detail = "The queue of this agent belongs to another user."
        raise RefusedError(HTTPStatus.CONFLICT, {"detail": detail})
    row = before or EventConsumer(
        uuid=call.tx.new_uuid(),
        created=call.tx.now,
        modified=call.tx.now,
        identity=identity.uuid,
        user=call.user.uuid,
        login=call.tx.new_uuid(),
    )
    row = replace(row, object_types=row.object_types if types is None else types)
    try:
        if before and not call.tx.broker.may_enter(row.user, row.login):
            row = replace(row, login=call.tx.new_uuid())
        call.tx.broker.open_vhost(row.user)
        call.tx.broker.put_login(row.user, row.login, call.user.token)
        call.tx.broker.put_queue(row.user, row.queue)
    except BrokerTroubleError as error:
        raise _broken_broker(error) from error
    call.tx.world.put(replace(row, modified=call.tx.now))
    return JsonResponse(rendering.consumer(row), HTTPStatus.OK if before else HTTPStatus.CREATED)


_ONE = f"{_SUBSCRIPTIONS}{{uuid}}/"
_AGENT = f"{_IDENTITIES}{{uuid}}/"
OPERATIONS = (
    Operation("event_subscriptions_list", "GET", _SUBSCRIPTIONS, _list),
    Operation("event_subscriptions_create", "POST", _SUBSCRIPTIONS, _create),
    Operation("event_subscriptions_retrieve", "GET", _ONE, _retrieve),
    Operation("event_subscriptions_destroy", "DELETE", _ONE, _destroy),
    Operation(
        "event_subscriptions_create_queue", "POST", f"{_ONE}create_queue/", _create_queue, (7, 9, 9)
    ),
    Operation("event_subscription_queues_list", "GET", _QUEUES, _list_queues, (7, 9, 9)),
    Operation(
        "event_subscription_queues_destroy",
        "DELETE",
        f"{_QUEUES}{{uuid}}/",
        _destroy_queue,
        (7, 9, 9),
    ),
    Operation(
        "marketplace_site_agent_identities_register_event_subscription",
        "POST",
        f"{_AGENT}register_event_subscription/",
        _register_event_subscription,
        (7, 8, 5),
    ),
    Operation(
        "marketplace_site_agent_identities_register_queue",
        "POST",
        f"{_AGENT}register_queue/",
        _register_queue,
        (8, 1, 0),
    ),
)
