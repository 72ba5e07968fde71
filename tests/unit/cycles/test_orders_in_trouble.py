"""order_process when one side is away, answers nonsense, refuses, or is slower than the agent."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import httpx
import pytest
import structlog

from harness import Relay, SimulatedSite, a_simulated_site
from waldur_site_agent.cycles.order_inputs import OrderStatus
from waldur_site_agent.cycles.orders import process_orders, repair_stuck_updates
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.simulator import Outage


@pytest.mark.guarantee("orders: Slurm misbehaves")
def test_when_the_cluster_is_away_orders_are_not_even_approved(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    for outage in (Outage.SLURMDBD_REFUSED, Outage.SLURMDBD_HUNG, Outage.MARIADB_AWAY):
        with testbed.slurm.outage(outage), pytest.raises(TemporaryError):
            testbed.cycle()
        assert testbed.state(order) == "pending-provider"
    testbed.cycle()
    assert testbed.state(order) == "done"


@pytest.mark.guarantee("orders: Slurm misbehaves")
@pytest.mark.parametrize("after", range(1, 9))
def test_a_database_that_goes_away_in_mid_cycle_leaves_the_order_open(
    testbed: SimulatedSite, after: int
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    with (
        testbed.slurm.outage(Outage.SLURMDBD_REFUSED, after_commands=after),
        contextlib.suppress(
            TemporaryError
        ),  # cut short while it reads, before the order is approved
    ):
        testbed.cycle()
    assert testbed.state(order) in ("pending-provider", "executing", "done")
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}
    assert testbed.resource(order).state == "OK"


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_team_that_cannot_be_read_leaves_the_order_open_and_nobody_out(
    testbed: SimulatedSite,
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    other = testbed.order(testbed.project("other", ada="ada01"))
    testbed.sandbox.faults.add(
        "marketplace_provider_resources_team_list", "status", status=403, times=1
    )
    testbed.cycle()
    states = sorted([testbed.state(order), testbed.state(other)])
    assert states == ["done", "executing"]
    testbed.cycle()
    assert {testbed.state(order), testbed.state(other)} == {"done"}
    assert testbed.members(order) == testbed.members(other) == {"ada01"}


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_short_list_of_resources_stops_the_cycle_before_anything_is_written(
    testbed: SimulatedSite,
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add(
        "marketplace_provider_resources_list", "short_page", rows=1, times=None
    )
    with pytest.raises(TemporaryError, match="resources"):
        testbed.cycle()
    assert testbed.state(order) == "executing"
    assert testbed.accounts == set()


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_token_that_expires_in_mid_cycle_errs_nothing(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add(
        "marketplace_orders_set_state_done", "status", status=401, times=None
    )
    testbed.cycle()
    assert testbed.state(order) == "executing"
    testbed.sandbox.faults.clear()
    testbed.cycle()
    assert testbed.state(order) == "done"


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_server_that_answers_html_errs_nothing(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    for operation in (
        "marketplace_orders_list",
        "marketplace_provider_resources_list",
        "marketplace_offering_users_list",
        "marketplace_orders_set_state_done",
    ):
        testbed.sandbox.faults.add(operation, "html", times=None)
        with contextlib.suppress(TemporaryError):
            testbed.cycle()
        testbed.sandbox.faults.clear()
        assert testbed.state(order) != "erred"
    testbed.cycle()
    assert testbed.state(order) == "done"


@pytest.mark.guarantee("orders: Several at once")
def test_an_order_for_a_later_date_waits(testbed: SimulatedSite) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    tomorrow = (testbed.sandbox.clock.now() + timedelta(days=1)).date()
    order = side.place_create_order(project, "later", {"cpu": 1}, start_date=tomorrow)
    testbed.cycle()
    assert testbed.state(order) == "pending-start-date"
    assert testbed.accounts == set()


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_an_order_that_waldur_has_not_begun_to_process_waits_for_the_next_pass(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_simulated_site(tmp_path_factory.mktemp("h") / "lock", "7.7.9") as testbed:
        resource = testbed.created(testbed.project(ada="ada01"))
        testbed.sandbox.worker.pause()
        order = testbed.sandbox.customer.place_terminate_order(resource)
        testbed.cycle()
        assert testbed.state(order) == "executing"
        assert resource.backend_id in testbed.accounts
        testbed.sandbox.worker.resume()
        testbed.cycle()
        assert testbed.state(order) == "done"
        assert testbed.resource(order).state == "Terminated"


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_resource_left_in_updating_is_set_ok(testbed: SimulatedSite) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    testbed.sandbox.customer.edit(resource, state="Updating")
    with testbed.agent() as site:
        assert repair_stuck_updates(site) == 1
    assert testbed.sandbox.customer.current(resource).state == "OK"


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_a_repair_that_waldur_refuses_does_not_stand_in_the_way(
    testbed: SimulatedSite, status: int
) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    testbed.sandbox.customer.edit(resource, state="Updating")
    testbed.sandbox.faults.add("*_set_as_ok", "status", status=status, times=None)
    with testbed.agent() as site:
        assert repair_stuck_updates(site) == 0


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_resource_that_a_late_task_leaves_in_updating_is_mended_by_the_next_passes(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    testbed.sandbox.customer.place_update_order(resource, {"cpu": 20})
    with testbed.agent() as site:
        process_orders(site)
        testbed.sandbox.customer.edit(testbed.sandbox.customer.current(resource), state="Updating")
        process_orders(site)
        assert testbed.sandbox.customer.current(resource).state == "OK"
        process_orders(site)
        testbed.sandbox.requests.clear()
        process_orders(site)
        assert testbed.sandbox.requests.by_operation() == {"marketplace_orders_list": 1}


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.parametrize("status", [400, 403])
def test_a_name_that_waldur_does_not_take_errs_nothing(testbed: SimulatedSite, status: int) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add("*_set_backend_id", "status", status=status, times=None)
    report = testbed.cycle()
    assert report.failed
    assert testbed.state(order) == "executing"
    testbed.sandbox.faults.clear()
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.parametrize("status", [400, 403])
def test_an_approval_that_waldur_refuses_is_reported(testbed: SimulatedSite, status: int) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add("*_approve_by_provider", "status", status=status, times=None)
    report = testbed.cycle()
    assert report.failed
    assert "was not approved" in report.results[0].reason
    assert testbed.state(order) == "pending-provider"


def test_an_order_approved_by_a_killed_agent_is_not_overtaken_either(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_simulated_site(tmp_path_factory.mktemp("h") / "lock", "7.7.9") as testbed:
        resource = testbed.created(testbed.project(ada="ada01"), cpu=10)
        testbed.sandbox.worker.pause()
        order = testbed.sandbox.customer.place_update_order(resource, {"cpu": 20})
        with testbed.agent() as site:
            site.waldur.approve_order(order.uuid)
        testbed.cycle()
        assert testbed.state(order) == "executing"
        testbed.sandbox.worker.resume()
        testbed.cycle()
        assert testbed.state(order) == "done"
        assert testbed.resource(order).state == "OK"


def test_projects_that_a_server_does_not_name_keep_their_teams_apart(
    testbed: SimulatedSite,
) -> None:
    testbed = testbed.with_(transport=_WithoutProjects)
    first = testbed.order(testbed.project("one", ada="ada01"))
    second = testbed.order(testbed.project("two", bob="bob01"))
    testbed.cycle()
    assert (testbed.members(first), testbed.members(second)) == ({"ada01"}, {"bob01"})


class _WithoutProjects(Relay):
    """Answers of a server that shows no project's UUID."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        body = response.read().replace(b'"project_uuid"', b'"other"')
        kept = ("content-type", "x-result-count", "link")
        headers = {name: value for name, value in response.headers.items() if name in kept}
        return httpx.Response(response.status_code, headers=headers, content=body)


@pytest.mark.guarantee("orders: Several at once")
def test_a_defect_met_on_one_order_does_not_stop_the_others(
    testbed: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = testbed.order(testbed.project("bad", ada="ada01"))
    good = testbed.order(testbed.project("good", ada="ada01"))
    place = SlurmBackend.place

    def defective(self: SlurmBackend, request: ResourceRequest, slug: str) -> Placement:
        if request.project_slug == "bad":
            raise KeyError("a bug")
        return place(self, request, slug)

    monkeypatch.setattr(SlurmBackend, "place", defective)
    report = testbed.cycle()
    assert report.failed
    assert (testbed.state(bad), testbed.state(good)) == ("executing", "done")


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_resource_that_is_really_being_updated_is_left_alone(testbed: SimulatedSite) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    testbed.sandbox.customer.place_update_order(resource, {"cpu": 20})
    with testbed.agent() as site:
        assert repair_stuck_updates(site) == 0
    assert testbed.sandbox.customer.current(resource).state == "Updating"


def test_an_order_that_cannot_be_understood_does_not_stop_the_others(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    bad, good = testbed.order(project, "bad"), testbed.order(project, "good")
    testbed.sandbox.customer.edit(bad, limits={"cpu": "lots"})
    testbed.cycle()
    assert testbed.state(bad) == "pending-provider"
    assert testbed.state(good) == "done"


def test_a_defect_of_planning_is_logged_with_its_traceback(
    testbed: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))

    def defective(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("waldur_site_agent.planning.orders._plan_create", defective)
    with structlog.testing.capture_logs() as lines:
        assert testbed.cycle().failed
    assert testbed.state(order) == "executing"
    (line,) = [line for line in lines if line["event"] == "defect"]
    assert isinstance(line["exc_info"], KeyError)


class _Deciding(Relay):
    """Waldur, or somebody, moves an order on within the approve call."""

    def __init__(
        self, inner: httpx.BaseTransport, testbed: SimulatedSite, order: Order, **changes: object
    ) -> None:
        super().__init__(inner)
        self._testbed, self._order, self._changes = testbed, order, changes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if request.url.path.endswith("/approve_by_provider/"):
            self._testbed.sandbox.customer.edit(self._order, **self._changes)
        return answer


@pytest.mark.parametrize(
    ("changes", "outcome", "is_trouble", "words"),
    [
        (
            {"state": "erred", "error_message": "no such plan"},
            OrderStatus.ERRED,
            True,
            "no such plan",
        ),
        (
            {"state": "erred", "error_message": ""},
            OrderStatus.ERRED,
            True,
            "Waldur gives no reason",
        ),
        ({"state": "canceled"}, OrderStatus.WAITING, True, "is canceled in Waldur"),
        ({"state": "done"}, OrderStatus.DONE, False, ""),
    ],
)
def test_an_order_that_ends_within_the_approval_is_read_again_and_named(
    testbed: SimulatedSite,
    changes: dict[str, str],
    outcome: OrderStatus,
    is_trouble: bool,
    words: str,
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed = testbed.with_(transport=lambda inner: _Deciding(inner, testbed, order, **changes))
    report = testbed.cycle()
    (found,) = report.results
    assert (found.status, found.is_trouble) == (outcome, is_trouble)
    assert words in found.reason
    assert report.failed is is_trouble
    assert testbed.accounts == set()


def test_an_order_that_waits_for_its_date_is_named_and_is_no_trouble(
    testbed: SimulatedSite,
) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    tomorrow = (testbed.sandbox.clock.now() + timedelta(days=1)).date()
    side.place_create_order(project, "later", {"cpu": 1}, start_date=tomorrow)
    report = testbed.cycle()
    (result,) = report.results
    assert f"pending-start-date in Waldur; Waldur starts it on {tomorrow}" in result.reason
    assert not report.failed
