"""order_process when one side is away, answers nonsense, refuses, or is slower than the agent."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import httpx
import pytest
import structlog

from harness import House, a_house
from waldur_site_agent.cycles.order_inputs import Fate
from waldur_site_agent.cycles.orders import process_orders, repair_stuck_updates
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.simulator import Outage


def test_when_the_cluster_is_away_orders_are_not_even_approved(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    for outage in (Outage.SLURMDBD_REFUSED, Outage.SLURMDBD_HUNG, Outage.MARIADB_AWAY):
        with house.slurm.outage(outage), pytest.raises(TemporaryError):
            house.cycle()
        assert house.state(order) == "pending-provider"
    house.cycle()
    assert house.state(order) == "done"


@pytest.mark.parametrize("after", range(1, 9))
def test_a_database_that_goes_away_in_mid_cycle_leaves_the_order_open(
    house: House, after: int
) -> None:
    order = house.order(house.project(ada="ada01"))
    with house.slurm.outage(Outage.SLURMDBD_REFUSED, after_commands=after):
        house.cycle()
        assert house.state(order) in ("executing", "done")
    house.cycle()
    assert house.state(order) == "done"
    assert house.members(order) == {"ada01"}
    assert house.resource(order).state == "OK"


def test_a_team_that_cannot_be_read_leaves_the_order_open_and_nobody_out(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    other = house.order(house.project("other", ada="ada01"))
    house.sandbox.faults.add(
        "marketplace_provider_resources_team_list", "status", status=403, times=1
    )
    house.cycle()
    states = sorted([house.state(order), house.state(other)])
    assert states == ["done", "executing"]
    house.cycle()
    assert {house.state(order), house.state(other)} == {"done"}
    assert house.members(order) == house.members(other) == {"ada01"}


def test_a_short_list_of_resources_stops_the_cycle_before_anything_is_written(
    house: House,
) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add(
        "marketplace_provider_resources_list", "short_page", rows=1, times=None
    )
    with pytest.raises(TemporaryError, match="resources"):
        house.cycle()
    assert house.state(order) == "executing"
    assert house.accounts == set()


def test_a_token_that_expires_in_mid_cycle_errs_nothing(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add("marketplace_orders_set_state_done", "status", status=401, times=None)
    house.cycle()
    assert house.state(order) == "executing"
    house.sandbox.faults.clear()
    house.cycle()
    assert house.state(order) == "done"


def test_a_server_that_answers_html_errs_nothing(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    for operation in (
        "marketplace_orders_list",
        "marketplace_provider_resources_list",
        "marketplace_offering_users_list",
        "marketplace_orders_set_state_done",
    ):
        house.sandbox.faults.add(operation, "html", times=None)
        with contextlib.suppress(TemporaryError):
            house.cycle()
        house.sandbox.faults.clear()
        assert house.state(order) != "erred"
    house.cycle()
    assert house.state(order) == "done"


def test_an_order_for_a_later_date_waits(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    tomorrow = (house.sandbox.clock.now() + timedelta(days=1)).date()
    order = side.place_create_order(project, "later", {"cpu": 1}, start_date=tomorrow)
    house.cycle()
    assert house.state(order) == "pending-start-date"
    assert house.accounts == set()


def test_an_order_that_waldur_has_not_begun_to_process_waits_for_the_next_pass(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_house(tmp_path_factory.mktemp("h") / "lock", "7.7.9") as house:
        resource = house.created(house.project(ada="ada01"))
        house.sandbox.worker.pause()
        order = house.sandbox.customer.place_terminate_order(resource)
        house.cycle()
        assert house.state(order) == "executing"
        assert resource.backend_id in house.accounts
        house.sandbox.worker.resume()
        house.cycle()
        assert house.state(order) == "done"
        assert house.resource(order).state == "Terminated"


def test_a_resource_left_in_updating_is_set_ok(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.edit(resource, state="Updating")
    with house.agent() as site:
        assert repair_stuck_updates(site) == 1
    assert house.sandbox.customer.current(resource).state == "OK"


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_a_repair_that_waldur_refuses_does_not_stand_in_the_way(house: House, status: int) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.edit(resource, state="Updating")
    house.sandbox.faults.add("*_set_as_ok", "status", status=status, times=None)
    with house.agent() as site:
        assert repair_stuck_updates(site) == 0


def test_a_resource_that_a_late_task_leaves_in_updating_is_mended_by_the_next_passes(
    house: House,
) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.place_update_order(resource, {"cpu": 20})
    with house.agent() as site:
        process_orders(site)
        house.sandbox.customer.edit(house.sandbox.customer.current(resource), state="Updating")
        process_orders(site)
        assert house.sandbox.customer.current(resource).state == "OK"
        process_orders(site)
        house.sandbox.requests.clear()
        process_orders(site)
        assert house.sandbox.requests.by_operation() == {"marketplace_orders_list": 1}


@pytest.mark.parametrize("status", [400, 403])
def test_a_name_that_waldur_does_not_take_errs_nothing(house: House, status: int) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add("*_set_backend_id", "status", status=status, times=None)
    report = house.cycle()
    assert report.failed
    assert house.state(order) == "executing"
    house.sandbox.faults.clear()
    house.cycle()
    assert house.state(order) == "done"
    assert house.members(order) == {"ada01"}


@pytest.mark.parametrize("status", [400, 403])
def test_an_approval_that_waldur_refuses_is_reported(house: House, status: int) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add("*_approve_by_provider", "status", status=status, times=None)
    report = house.cycle()
    assert report.failed
    assert "was not approved" in report.fates[0].reason
    assert house.state(order) == "pending-provider"


def test_an_order_approved_by_a_killed_agent_is_not_overtaken_either(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_house(tmp_path_factory.mktemp("h") / "lock", "7.7.9") as house:
        resource = house.created(house.project(ada="ada01"), cpu=10)
        house.sandbox.worker.pause()
        order = house.sandbox.customer.place_update_order(resource, {"cpu": 20})
        with house.agent() as site:
            site.waldur.approve_order(order.uuid)
        house.cycle()
        assert house.state(order) == "executing"
        house.sandbox.worker.resume()
        house.cycle()
        assert house.state(order) == "done"
        assert house.resource(order).state == "OK"


def test_projects_that_a_server_does_not_name_keep_their_teams_apart(house: House) -> None:
    house = house.with_(transport=_WithoutProjects)
    first = house.order(house.project("one", ada="ada01"))
    second = house.order(house.project("two", bob="bob01"))
    house.cycle()
    assert (house.members(first), house.members(second)) == ({"ada01"}, {"bob01"})


class _WithoutProjects(httpx.HTTPTransport):
    """Answers of a server that shows no project's UUID."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        body = response.read().replace(b'"project_uuid"', b'"other"')
        kept = ("content-type", "x-result-count", "link")
        headers = {name: value for name, value in response.headers.items() if name in kept}
        return httpx.Response(response.status_code, headers=headers, content=body)


def test_a_defect_met_on_one_order_does_not_stop_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = house.order(house.project("bad", ada="ada01"))
    good = house.order(house.project("good", ada="ada01"))
    place = SlurmBackend.place

    def defective(self: SlurmBackend, request: ResourceRequest, slug: str) -> Placement:
        if request.project_slug == "bad":
            raise KeyError("a bug")
        return place(self, request, slug)

    monkeypatch.setattr(SlurmBackend, "place", defective)
    report = house.cycle()
    assert report.failed
    assert (house.state(bad), house.state(good)) == ("executing", "done")


def test_a_resource_that_is_really_being_updated_is_left_alone(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.place_update_order(resource, {"cpu": 20})
    with house.agent() as site:
        assert repair_stuck_updates(site) == 0
    assert house.sandbox.customer.current(resource).state == "Updating"


def test_an_order_that_cannot_be_understood_does_not_stop_the_others(house: House) -> None:
    project = house.project(ada="ada01")
    bad, good = house.order(project, "bad"), house.order(project, "good")
    house.sandbox.customer.edit(bad, limits={"cpu": "lots"})
    house.cycle()
    assert house.state(bad) == "pending-provider"
    assert house.state(good) == "done"


def test_a_defect_of_planning_is_logged_with_its_traceback(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = house.order(house.project(ada="ada01"))

    def defective(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("waldur_site_agent.planning.orders._plan_create", defective)
    with structlog.testing.capture_logs() as lines:
        assert house.cycle().failed
    assert house.state(order) == "executing"
    (line,) = [line for line in lines if line["event"] == "defect"]
    assert isinstance(line["exc_info"], KeyError)


class _Deciding(httpx.HTTPTransport):
    """Waldur, or somebody, moves an order on within the approve call."""

    def __init__(self, house: House, order: Order, **changes: object) -> None:
        super().__init__()
        self._house, self._order, self._changes = house, order, changes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if request.url.path.endswith("/approve_by_provider/"):
            self._house.sandbox.customer.edit(self._order, **self._changes)
        return answer


@pytest.mark.parametrize(
    ("changes", "fate", "is_trouble", "words"),
    [
        ({"state": "erred", "error_message": "no such plan"}, Fate.ERRED, True, "no such plan"),
        ({"state": "erred", "error_message": ""}, Fate.ERRED, True, "Waldur gives no reason"),
        ({"state": "canceled"}, Fate.WAITING, True, "is canceled in Waldur"),
        ({"state": "done"}, Fate.DONE, False, ""),
    ],
)
def test_an_order_that_ends_within_the_approval_is_read_again_and_named(
    house: House, changes: dict[str, str], fate: Fate, is_trouble: bool, words: str
) -> None:
    order = house.order(house.project(ada="ada01"))
    house = house.with_(transport=lambda: _Deciding(house, order, **changes))
    report = house.cycle()
    (found,) = report.fates
    assert (found.fate, found.is_trouble) == (fate, is_trouble)
    assert words in found.reason
    assert report.failed is is_trouble
    assert house.accounts == set()


def test_an_order_that_waits_for_its_date_is_named_and_is_no_trouble(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    tomorrow = (house.sandbox.clock.now() + timedelta(days=1)).date()
    side.place_create_order(project, "later", {"cpu": 1}, start_date=tomorrow)
    report = house.cycle()
    (fate,) = report.fates
    assert f"pending-start-date in Waldur; Waldur lets it begin on {tomorrow}" in fate.reason
    assert not report.failed
