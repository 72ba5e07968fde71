"""Requests for importable resources, from the account in the cluster to Waldur's list."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from harness import SimulatedSite
from harness.odd_rows import OddRows
from waldur_site_agent.cycles.importing import (
    ImportReport,
    answer_imports,
    importable,
    sync_membership_and_imports,
)
from waldur_site_agent.model.backend import ImportScope
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.planning.importing import (
    CLAIMED,
    HAS_CHILDREN,
    OFFERED,
    UNKNOWN_PROJECT,
    WRONG_PREFIX,
)
from waldur_site_agent_slurm.simulator.state import SimAccount


def add_account(testbed: SimulatedSite, name: str, parent: str, **limits: int) -> None:
    with testbed.slurm.change() as state:
        state.accounts[name] = SimAccount(name, name, parent, parent, limits=limits)


def answer(testbed: SimulatedSite, *requests: str) -> ImportReport:
    with testbed.agent() as site:
        if not requests:
            return answer_imports(site)
        return answer_imports(site, scopes=[ImportScope(UUID(uuid)) for uuid in requests])


@pytest.fixture
def cluster(testbed: SimulatedSite) -> SimulatedSite:
    testbed.settled(testbed.project("climate", ada="ada01"))
    return testbed


def test_an_account_below_a_known_project_is_offered_with_its_limits(
    cluster: SimulatedSite,
) -> None:
    add_account(cluster, "a_old", "p_climate", cpu=120000)
    side = cluster.sandbox.customer
    request = side.request_import()
    report = answer(cluster)
    assert not report.failed
    assert side.current(request).state == "Done"
    (found,) = side.importable()
    assert (found.name, found.backend_id) == ("a_old", "a_old")
    assert found.backend_metadata["limits"] == {"cpu": 2}


def test_everything_else_is_left_out_with_the_reason(cluster: SimulatedSite) -> None:
    add_account(cluster, "a_old", "p_climate")
    add_account(cluster, "other", "p_climate")
    add_account(cluster, "a_parent", "p_climate")
    add_account(cluster, "a_child", "a_parent")
    add_account(cluster, "p_unknown", "c_uni")
    add_account(cluster, "a_stray", "p_unknown")
    with cluster.agent() as site:
        plan = importable(site)
    assert [offer.account for offer in plan.offers] == ["a_old"]
    assert plan.skipped == {
        CLAIMED: 1,
        HAS_CHILDREN: 1,
        UNKNOWN_PROJECT: 2,
        WRONG_PREFIX: 1,
    }
    assert cluster.sandbox.requests.writes() == []


def test_an_account_whose_resource_is_not_understood_is_not_offered(cluster: SimulatedSite) -> None:
    add_account(cluster, "a_old", "p_climate")
    cluster.sandbox.customer.request_import()
    odd = OddRows("resources/", lambda row: bool(row.get("backend_id")), {"limits": "none"})
    report = answer(cluster.with_(transport=odd.between))
    assert odd.struck
    assert not report.failed
    assert [each.backend_id for each in cluster.sandbox.customer.importable()] == ["a_old"]


def test_what_was_offered_before_is_not_offered_again(cluster: SimulatedSite) -> None:
    add_account(cluster, "a_old", "p_climate")
    side = cluster.sandbox.customer
    for _ in range(2):
        side.request_import()
        assert not answer(cluster).failed
    assert len(side.importable()) == 1
    with cluster.agent() as site:
        assert importable(site).skipped[OFFERED] == 1


@pytest.mark.parametrize("age", [1, 2, 3, 5, 8])
def test_an_account_whose_name_no_list_shows_yet_is_not_offered(
    cluster: SimulatedSite, age: int
) -> None:
    side = cluster.sandbox.customer
    cluster.created(cluster.project("ice", ada="ada01"), "Ice")
    request = side.request_import()
    cluster.sandbox.faults.add("*_resources_list", "stale", times=None, changes_ago=age)
    assert not answer(cluster, request.uuid).failed
    assert not side.importable()


def test_a_request_that_is_over_is_not_answered_again(cluster: SimulatedSite) -> None:
    add_account(cluster, "a_old", "p_climate")
    side = cluster.sandbox.customer
    request = side.request_import()
    assert not answer(cluster).failed
    for age in (1, 2, 3):
        cluster.sandbox.faults.add("backend_resource*_list", "stale", times=None, changes_ago=age)
        assert not answer(cluster).failed
        cluster.sandbox.faults.clear()
    assert side.current(request).state == "Done"
    assert len(side.importable()) == 1


@pytest.mark.guarantee("events: Import")
def test_an_interrupted_answer_is_taken_up_again(cluster: SimulatedSite) -> None:
    for number in range(3):
        add_account(cluster, f"a_old{number}", "p_climate")
    side, faults = cluster.sandbox.customer, cluster.sandbox.faults
    request = side.request_import()
    faults.add("backend_resources_create", "status", status=503, times=None)
    with pytest.raises(TemporaryError):
        answer(cluster)
    assert side.current(request).state == "Processing"
    faults.clear()
    assert not answer(cluster, request.uuid).failed
    assert side.current(request).state == "Done"
    assert len(side.importable()) == 3


def test_what_waldur_refuses_for_good_is_the_reason_of_the_error(cluster: SimulatedSite) -> None:
    add_account(cluster, "a_old", "p_climate")
    side = cluster.sandbox.customer
    request = side.request_import()
    cluster.sandbox.faults.add("backend_resources_create", "status", status=403, times=None)
    report = answer(cluster, request.uuid)
    assert report.failed
    found = side.current(request)
    assert found.state == "Erred"
    assert "a_old" in found.error_message


def test_requests_are_polled_with_the_members_only_where_the_site_allows_it(
    cluster: SimulatedSite,
) -> None:
    side = cluster.sandbox.customer
    request = side.request_import()
    with cluster.agent() as site:
        sync_membership_and_imports(site)
    assert side.current(request).state == "Sent"
    cluster.forget()
    with cluster.agent() as site:
        object.__setattr__(
            site, "offering", site.offering.model_copy(update={"resource_import_enabled": True})
        )
        assert not sync_membership_and_imports(site).failed
        assert side.current(request).state == "Done"
        cluster.forget()
        sync_membership_and_imports(site)
    assert cluster.sandbox.requests.writes() == []


def test_a_request_that_is_not_visible_yet_is_tried_again(cluster: SimulatedSite) -> None:
    with pytest.raises(TemporaryError):
        answer(cluster, uuid4().hex)


def test_an_answered_request_is_not_answered_twice(cluster: SimulatedSite) -> None:
    request = cluster.sandbox.customer.request_import()
    answer(cluster, request.uuid)
    cluster.forget()
    assert answer(cluster, request.uuid).answered == 0
    assert cluster.sandbox.requests.writes() == []


def test_an_account_that_is_kept_for_a_terminated_resource_is_not_offered(
    cluster: SimulatedSite,
) -> None:
    keeping = cluster.with_(settings={"soft_delete": True})
    resource = keeping.created(keeping.project("climate", ada="ada01"), "ended", cpu=1)
    cluster.sandbox.customer.place_terminate_order(resource)
    keeping.cycle()
    add_account(cluster, "a_old", "p_climate", cpu=120000)
    with keeping.agent() as site:
        plan = importable(site)
    assert [offer.account for offer in plan.offers] == ["a_old"]
