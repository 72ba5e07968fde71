"""The life of a resource through the agent, by a plugin that was written for version 1."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from harness import KilledError, KillSwitch
from harness.v1_site import CAMPUS, CLOUD, OLD, V1Site, a_v1_site, adapted, campus
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order


@pytest.fixture(autouse=True)
def _empty_campus() -> None:
    campus().forget()


def ordered(site: V1Site, **people: str) -> Order:
    project = site.project(**(people or {"ada": "ada01", "bob": "bob01"}))
    side = site.sandbox.customer
    return side.place_create_order(project, "Ocean data", {"cpu": 10}, {"protocol": "smb"})


@pytest.mark.guarantee("v1-plugins")
@pytest.mark.guarantee("v1-plugins: What holds for such plugins")
@pytest.mark.parametrize("entry_point", [CAMPUS, CLOUD, OLD])
def test_a_resource_lives_from_order_to_termination(entry_point: str) -> None:
    with a_v1_site(adapted(entry_point), allocation_prefix="hpc_") as site:
        side = site.sandbox.customer
        order = ordered(site)
        site.cycle()
        assert site.state(order) == "done"
        name = site.resource(order).backend_id
        folder = campus().FOLDERS[name]
        for _ in range(2):
            assert not site.sync().failed
        assert folder["users"] == {"ada01", "bob01"}
        assert campus().CALLS.count("add ada01") == 1
        assert site.resource(order).backend_metadata["share"] == f"smb://campus/{name}"
        update = side.place_update_order(site.resource(order), {"cpu": 20})
        site.cycle()
        assert site.state(update) == "done"
        assert folder["limits"] == {"cpu": 1200000}
        side.set_flags(site.resource(order), paused=True)
        for _ in range(2):
            assert not site.sync().failed
        assert folder["paused"]
        side.set_flags(site.resource(order), paused=False)
        site.sync()
        assert not folder["paused"]
        assert campus().CALLS.count("pause") == campus().CALLS.count("restore") == 1
        side.remove_member(order.project, site.person("bob", "bob01"))
        assert not site.sync().failed
        assert folder["users"] == {"ada01"}
        end = side.place_terminate_order(site.resource(order))
        site.cycle()
        assert site.state(end) == "done"
        assert name not in campus().FOLDERS


def test_the_order_form_and_the_team_reach_the_plugin() -> None:
    with a_v1_site(adapted(CAMPUS)) as site:
        ordered(site)
        site.cycle()
        assert "protocol smb for climate" in campus().CALLS
        assert "team of 2" in campus().CALLS


def test_usage_is_reported_in_waldurs_units() -> None:
    with a_v1_site(adapted(CAMPUS)) as site:
        order = ordered(site)
        site.cycle()
        assert site.report().failures == ()
        usages = {
            u.component_type: u.usage for u in site.sandbox.customer.world.component_usages.values()
        }
        assert usages == {"cpu": 3, "mem": 1}
        assert site.resource(order).state == "OK"


def test_an_order_that_the_plugin_finishes_later_is_asked_for_and_then_done() -> None:
    with a_v1_site(adapted(CLOUD)) as site:
        campus().STATE["slow"] = True
        order = ordered(site)
        for _ in range(3):
            assert not site.cycle().has_failures
        assert site.state(order) == "executing"
        jobs = campus().JOBS
        jobs.update(dict.fromkeys(jobs, True))
        site.cycle()
        assert site.state(order) == "done"


FAILURES = ["get 500", "create 500", "create 503", "limits 500", "list 500", "ping 401"]


@pytest.mark.guarantee("v1-plugins: What holds for such plugins")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("entry_point", [CAMPUS, CLOUD])
def test_a_failing_server_errs_and_removes_nothing(entry_point: str, failure: str) -> None:
    with a_v1_site(adapted(entry_point)) as site:
        first = ordered(site)
        site.cycle()
        site.sync()
        folders = {name: dict(found) for name, found in campus().FOLDERS.items()}
        second = ordered(site)
        campus().STATE["fails"] = failure
        for _ in range(2):
            for work in (site.cycle, site.sync, site.report):
                with contextlib.suppress(TemporaryError):
                    work()
        assert site.state(second) in {"executing", "pending-provider", "done"}
        assert site.resource(first).state == "OK"
        assert folders.items() <= {n: dict(f) for n, f in campus().FOLDERS.items()}.items()
        assert not site.sandbox.requests.count("*_set_as_erred")
        campus().STATE["fails"] = ""
        site.cycle()
        assert not site.sandbox.requests.count("*_set_state_erred")


@pytest.mark.guarantee("v1-plugins: What holds for such plugins")
def test_a_deletion_that_the_plugin_only_claims_is_not_believed() -> None:
    with a_v1_site(adapted(CLOUD)) as site:
        order = ordered(site)
        site.cycle()
        end = site.sandbox.customer.place_terminate_order(site.resource(order))
        campus().STATE["fails"] = "delete 500"
        assert site.cycle().has_failures
        assert site.state(end) == "executing"
        campus().STATE["fails"] = ""
        site.cycle()
        assert site.state(end) == "done"
        assert not campus().FOLDERS


def test_a_refused_request_errs_the_order_with_the_plugins_words() -> None:
    with a_v1_site(adapted(CAMPUS)) as site:
        order = ordered(site)
        campus().STATE["fails"] = "create 422"
        site.cycle()
        assert site.state(order) == "erred"
        assert "422" in site.sandbox.customer.current(order).error_message


def test_somebody_elses_resource_of_the_same_name_is_not_taken() -> None:
    with a_v1_site(adapted(CAMPUS)) as site:
        order = ordered(site)
        foreign = {"title": "", "project": "", "users": {"own"}, "limits": {}, "paused": False}
        campus().FOLDERS[site.resource(order).slug] = foreign
        site.cycle()
        assert site.state(order) == "erred"
        assert foreign["users"] == {"own"}


def test_members_whom_the_plugin_does_not_take_yet_wait_and_the_others_are_served() -> None:
    people = {"ada": "ada01", "new": "newcomer", "bad": "banned"}
    with a_v1_site(adapted(CAMPUS)) as site:
        order = ordered(site, **people)
        site.cycle()
        site.sync()
        assert campus().FOLDERS[site.resource(order).backend_id]["users"] == {"ada01"}


@pytest.mark.guarantee("v1-plugins: What holds for such plugins")
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("entry_point", [CAMPUS, CLOUD])
def test_killed_at_any_step_an_order_makes_one_resource(
    monkeypatch: pytest.MonkeyPatch, entry_point: str, *, after_effect: bool
) -> None:
    service = campus()
    at = 0
    while True:
        at += 1
        service.forget()
        with a_v1_site(adapted(entry_point)) as site:
            order = ordered(site)
            blade = site.blade = KillSwitch(at=at, after_effect=after_effect)
            plain: Any = service.call

            def call(name: str, blade: KillSwitch = blade, plain: Any = plain) -> None:
                if blade.step(name):
                    plain(name)
                    blade.die()
                plain(name)

            with monkeypatch.context() as patch:
                patch.setattr(service, "call", call)
                with contextlib.suppress(KilledError):
                    site.cycle()
            site.blade = KillSwitch()
            for _ in range(2):
                site.cycle()
            where = f"killed at step {at}: {blade.steps[-1]}"
            assert site.state(order) == "done", where
            assert [*service.FOLDERS] == [site.resource(order).backend_id], where
            assert not site.sandbox.requests.count("*_set_state_erred"), where
            if not blade.dead:
                assert at > 8
                return
