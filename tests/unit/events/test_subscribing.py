"""Registering with each generation of servers, as the sandbox plays them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from harness import SimulatedSite, a_simulated_site
from waldur_site_agent.config import Offering
from waldur_site_agent.events.broker import LoginRefusedError, Subscription
from waldur_site_agent.events.registration import Registration, object_types_of
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur import Waldur

TYPES = ("order", "user_role", "resource", "offering_user", "service_account", "course_account")


def offering_of(testbed: SimulatedSite, **changes: object) -> Offering:
    settings = {
        "membership_sync_backend": "slurm",
        "stomp_enabled": True,
        "websocket_use_tls": False,
    }
    return Offering.model_validate(
        {**testbed.offering().model_dump(), "waldur_api_token": testbed.sandbox.token}
        | settings
        | changes
    )


@contextmanager
def registered(testbed: SimulatedSite, **changes: object) -> Iterator[Registration]:
    with Waldur(testbed.url, testbed.token or testbed.sandbox.token, mode="test") as waldur:
        yield Registration(waldur, offering_of(testbed, **changes), structlog.get_logger())


@contextmanager
def an_old_site(directory: Path, version: str) -> Iterator[SimulatedSite]:
    with a_simulated_site(directory / "lock", version) as testbed, testbed.served():
        yield testbed


def subscription_of(testbed: SimulatedSite, **changes: object) -> Subscription:
    with registered(testbed, **changes) as registration:
        return registration.subscribe()


def test_only_the_types_that_the_jobs_need_are_asked_for(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "8.1.3") as testbed:
        only_orders = offering_of(testbed, membership_sync_backend="")
        assert object_types_of(only_orders) == ("order",)
        assert object_types_of(offering_of(testbed)) == TYPES
        imports = offering_of(testbed, resource_import_enabled=True)
        assert object_types_of(imports) == (*TYPES, "importable_resources")


@pytest.mark.guarantee("events: Connection and registration")
def test_a_new_server_gives_one_queue_and_the_same_one_again(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "8.1.3") as testbed:
        first, second = subscription_of(testbed), subscription_of(testbed)
        assert first == second
        assert first.declared
        assert [name[:9] for name in first.queues] == ["consumer_"]
        assert first.vhost == testbed.sandbox.agent.uuid
        assert first.password == testbed.sandbox.token
        assert testbed.sandbox.requests.count("event_subscriptions_create") == 0
        assert testbed.sandbox.customer.agent_states() == {"event_process": "Active"}


def test_a_server_in_between_gives_a_queue_for_each_type(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "8.0.5") as testbed:
        found = subscription_of(testbed)
        assert found.declared
        assert [
            name.rpartition(testbed.sandbox.offering.uuid + "_")[2] for name in found.queues
        ] == [*TYPES]
        assert subscription_of(testbed) == found


def test_on_an_old_server_the_subscription_makes_the_queue(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "7.7.9") as testbed:
        found = subscription_of(testbed)
        assert not found.declared
        assert found.vhost == testbed.sandbox.agent.uuid
        assert found.queues[0] == (
            f"subscription_{found.login}_offering_{testbed.sandbox.offering.uuid}_order"
        )
        made = testbed.sandbox.requests.count("event_subscriptions_create")
        assert subscription_of(testbed) == found
        assert testbed.sandbox.requests.count("event_subscriptions_create") == made


def test_with_mqtt_there_are_topics(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "7.7.9") as testbed:
        found = subscription_of(testbed, stomp_enabled=False, mqtt_enabled=True)
        assert found.queues[0] == (
            f"subscription/{found.login}/offering/{testbed.sandbox.offering.uuid}/order"
        )


def test_a_refused_login_leads_to_another_one_and_only_once_in_an_hour(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "7.7.9") as testbed, registered(testbed) as registration:
        logins = [registration.subscribe().login]
        refused = LoginRefusedError("the password is not that of now")
        logins += [registration.subscribe(refused).login for _ in range(6)]
        assert logins[1] != logins[0]
        made = testbed.sandbox.requests.count("event_subscriptions_create")
        assert made == len(TYPES) + 1
        assert testbed.sandbox.requests.count("*destroy*") == 0


def test_a_queue_that_belongs_to_another_user_is_said_to(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "8.1.3") as testbed:
        subscription_of(testbed)
        staff = testbed.sandbox.staff()
        with pytest.raises(TemporaryError, match="belong to another Waldur user"):
            subscription_of(testbed.with_(token=staff.token))


def test_the_sign_of_life_keeps_the_service_active(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "8.1.3") as testbed, registered(testbed) as registration:
        registration.subscribe()
        testbed.sandbox.requests.clear()
        registration.ping()
        assert testbed.sandbox.requests.count() == 1
        assert testbed.sandbox.requests.count("*register_processor") == 1


def test_a_server_without_identities_gets_a_cheap_request_as_sign_of_life(tmp_path: Path) -> None:
    with an_old_site(tmp_path, "7.7.9") as testbed, registered(testbed) as registration:
        registration.subscribe()
        testbed.sandbox.requests.clear()
        registration.ping()
        assert testbed.sandbox.requests.count() == 1


@pytest.mark.parametrize(("version", "warned"), [("7.7.9", 0), ("8.1.3", 1)])
def test_a_server_that_left_mqtt_is_found_out_without_its_version(
    tmp_path: Path, version: str, warned: int
) -> None:
    with capture_logs() as logs, an_old_site(tmp_path, version) as testbed:
        subscription_of(testbed, stomp_enabled=False, mqtt_enabled=True)
        assert testbed.sandbox.requests.count("version_retrieve") == 0
    said = [entry for entry in logs if "no longer publishes events over MQTT" in entry["event"]]
    assert len(said) == warned
