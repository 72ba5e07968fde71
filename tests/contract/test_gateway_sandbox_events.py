"""Agents, queues and imports: the gateway and the sandbox agree, in every generation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.events import AgentIdentity, ObjectType
from waldur_site_agent.model.marketplace import ImportState
from waldur_site_agent.waldur import (
    AbsentOperationError,
    ConflictError,
    NotFoundError,
    Waldur,
)
from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from waldur_site_agent.model.marketplace import Project

NOBODY = "f" * 32
NAME = "agent-of-tests"


since_agents = pytest.mark.parametrize("sandbox", ["8.0.2", "8.1.3"], indirect=True)
since_one_queue = pytest.mark.parametrize("sandbox", ["8.1.3"], indirect=True)


@pytest.fixture
def identity(sandbox: Sandbox, waldur: Waldur) -> AgentIdentity:
    """An agent that introduced itself."""
    return waldur.create_identity(sandbox.offering.uuid, NAME, "2.0.0")


def test_a_server_that_knows_no_agents_says_so() -> None:
    old = Sandbox("7.7.9")
    with old.serve() as url, Waldur(url, old.token) as waldur:
        for ask in (
            lambda: waldur.identities(old.offering.uuid, NAME),
            lambda: waldur.create_identity(old.offering.uuid, NAME, "2.0.0"),
            lambda: waldur.register_queue(NOBODY, ["order"]),
            lambda: waldur.register_event_subscription(NOBODY, "order"),
        ):
            with pytest.raises(AbsentOperationError):
                ask()


@since_agents
def test_an_agent_introduces_itself_once_and_tells_of_changes(
    sandbox: Sandbox, waldur: Waldur, identity: AgentIdentity
) -> None:
    offering = sandbox.offering.uuid
    restarted = datetime(2026, 11, 2, 10, tzinfo=UTC)
    with pytest.raises(PermanentError, match="unique set"):
        waldur.create_identity(offering, NAME, "2.0.0")
    changed = waldur.update_identity(
        identity.uuid, offering, NAME, "2.0.1", last_restarted=restarted
    )
    (found,) = waldur.identities(offering, NAME).require_complete("agents")
    assert (found.uuid, found.offering_uuid) == (identity.uuid, UUID(offering))
    assert (found.version, found.last_restarted) == ("2.0.1", restarted)
    assert changed == found
    assert waldur.identities(offering, "another").require_complete("agents") == ()


@since_agents
def test_an_agent_that_gives_signs_of_life_is_shown_as_active(
    sandbox: Sandbox, waldur: Waldur, identity: AgentIdentity
) -> None:
    service = waldur.register_service(identity.uuid, "events", "event_process")
    assert (service.name, service.mode) == ("events", "event_process")
    first = waldur.register_processor(service.uuid, "orders", "slurm", "22.05")
    sandbox.clock.advance(700)
    assert sandbox.customer.agent_states() == {"events": "Idle"}
    assert waldur.register_service(identity.uuid, "events", "event_process").uuid == service.uuid
    again = waldur.register_processor(service.uuid, "orders", "slurm", "22.05")
    assert again.uuid == first.uuid
    assert first.last_run is not None
    assert again.last_run is not None
    assert again.last_run > first.last_run
    assert sandbox.customer.agent_states() == {"events": "Active"}


@since_agents
def test_the_newest_server_gives_one_queue_for_everything(
    sandbox: Sandbox, waldur: Waldur, identity: AgentIdentity
) -> None:
    wanted = [ObjectType.ORDER, ObjectType.USER_ROLE]
    if sandbox.server_version != "8.1.3":
        with pytest.raises(AbsentOperationError):
            waldur.register_queue(identity.uuid, wanted)
        return
    made = waldur.register_queue(identity.uuid, wanted)
    assert waldur.register_queue(identity.uuid, wanted) == made
    assert {*made.observable_object_types} == {*wanted}
    assert made.vhost == sandbox.agent.uuid
    assert made.queue_name.startswith("consumer_")
    with pytest.raises(NotFoundError):
        waldur.register_queue(NOBODY, wanted)


@since_one_queue
def test_a_queue_that_another_user_owns_is_a_conflict(
    sandbox: Sandbox, waldur: Waldur, identity: AgentIdentity
) -> None:
    waldur.register_queue(identity.uuid, [ObjectType.ORDER])
    with (
        Waldur(waldur.base_url, sandbox.staff().token) as other,
        pytest.raises(ConflictError),
    ):
        other.register_queue(identity.uuid, [ObjectType.ORDER])


@since_agents
def test_subscriptions_are_found_again_and_queues_made_where_the_server_makes_them(
    sandbox: Sandbox, waldur: Waldur, identity: AgentIdentity
) -> None:
    made = waldur.register_event_subscription(identity.uuid, ObjectType.ORDER)
    assert made.object_types == ("order",)
    assert made.user_uuid == UUID(sandbox.agent.uuid)
    assert waldur.register_event_subscription(identity.uuid, ObjectType.ORDER) == made
    for _ in range(2):
        queue = waldur.create_queue(made.uuid, sandbox.offering.uuid, ObjectType.ORDER)
        name = f"subscription_{made.uuid.hex}_offering_{sandbox.offering.uuid}_order"
        assert (queue.queue_name, queue.vhost) == (name, sandbox.agent.uuid)
    (listed,) = waldur.event_subscriptions(sandbox.agent.uuid).require_complete("subscriptions")
    assert listed == made


def test_a_user_subscribes_without_an_agent(sandbox: Sandbox, waldur: Waldur) -> None:
    made = waldur.create_event_subscription("ours", [ObjectType.ORDER, ObjectType.USER_ROLE])
    assert made.object_types == ("order", "user_role")
    assert waldur.event_subscriptions().require_complete("subscriptions") == (made,)
    assert waldur.event_subscriptions(NOBODY).require_complete("subscriptions") == ()
    if sandbox.server_version == "7.7.9":
        with pytest.raises(AbsentOperationError):
            waldur.create_queue(made.uuid, sandbox.offering.uuid, ObjectType.ORDER)


def test_an_import_goes_from_the_wish_to_what_was_found(sandbox: Sandbox, waldur: Waldur) -> None:
    offering = sandbox.offering.uuid
    sandbox.customer.request_import()
    (wish,) = waldur.backend_resource_requests(offering, [ImportState.SENT]).require_complete("x")
    assert wish.offering_uuid == UUID(offering)
    waldur.start_import(wish.uuid)
    with pytest.raises(ConflictError):
        waldur.start_import(wish.uuid)
    (project,) = [p for p in served_projects(sandbox, waldur) if p.slug == "climate"]
    metadata = {"limits": {"cpu": 5}}
    offered = waldur.create_backend_resource("Old", project.uuid, offering, "hpc_old", metadata)
    waldur.import_done(wish.uuid)

    assert waldur.backend_resource_request(wish.uuid).state == ImportState.DONE
    (listed,) = waldur.backend_resources(offering).require_complete("resources")
    assert listed == offered
    assert (listed.project_uuid, listed.account) == (project.uuid, "hpc_old")
    assert listed.backend_metadata == metadata
    assert waldur.backend_resource_requests(offering, [ImportState.SENT]).items == ()


def test_an_import_that_cannot_be_done_says_why(sandbox: Sandbox, waldur: Waldur) -> None:
    wish = sandbox.customer.request_import()
    waldur.import_erred(wish.uuid, "slurmdbd is away")
    erred = waldur.backend_resource_request(wish.uuid)
    assert (erred.state, erred.error_message) == (ImportState.ERRED, "slurmdbd is away")


def test_projects_of_buyers_are_seen_through_the_provider(sandbox: Sandbox, waldur: Waldur) -> None:
    through_provider = served_projects(sandbox, waldur)
    customer = "" if sandbox.server_version == "7.7.9" else "uni"
    assert {(p.slug, p.customer_slug) for p in through_provider} == {
        ("climate", customer),
        ("physics", customer),
    }
    assert waldur.projects().require_complete("projects") == ()
    sandbox.customer.add_member("climate", sandbox.agent)
    (mine,) = waldur.projects().require_complete("projects")
    assert mine in through_provider
    stranger = sandbox.customer.add_user("stranger")
    with Waldur(waldur.base_url, stranger.token) as limited, pytest.raises(NotFoundError):
        limited.provider_projects(sandbox.provider.service_provider)


def test_the_usernames_of_one_person_are_asked_for_alone(sandbox: Sandbox, waldur: Waldur) -> None:
    offering = sandbox.offering.uuid
    everybody = waldur.offering_users(offering).require_complete("users")
    for user in everybody:
        assert waldur.offering_users(offering, user.user_uuid).require_complete("users") == (user,)


def served_projects(sandbox: Sandbox, waldur: Waldur) -> tuple[Project, ...]:
    listing = waldur.provider_projects(sandbox.provider.service_provider)
    return listing.require_complete("projects")
