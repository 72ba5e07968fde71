"""What is concluded where a plugin of version 1 does not find a resource."""

from __future__ import annotations

import contextlib

import pytest

from harness.v1_site import V1Site, a_v1_site, adapted, campus
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order

BACKENDS = "campus_storage.backend:"


@pytest.fixture(autouse=True)
def _empty_campus() -> None:
    campus().forget()


def made(site: V1Site) -> Order:
    order = site.order(site.project(ada="ada01"), "Ocean data")
    site.cycle()
    assert site.state(order) == "done"
    return order


@pytest.mark.guarantee("v1-plugins: What holds for such plugins")
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("get 500", "lists it, but could not read it"),
        ("get 401", "lists it, but could not read it"),
        ("list 500", "logged an error while it looked.*Cannot list: HTTP status 500"),
    ],
)
def test_a_failure_that_a_plugin_only_logs_is_no_absence(failure: str, said: str) -> None:
    with a_v1_site(adapted(BACKENDS + "SwallowingBackend")) as site:
        order = made(site)
        end = site.sandbox.customer.place_terminate_order(site.resource(order))
        if failure.startswith("list"):
            campus().FOLDERS.clear()  # it may be gone, but the second question failed
        campus().STATE["fails"] = failure
        for work in (site.cycle, site.sync):
            with pytest.raises(TemporaryError, match=said):
                work()
        assert site.state(end) in {"executing", "pending-provider"}
        campus().STATE["fails"] = ""
        site.cycle()
        assert site.state(end) == "done"
        assert not campus().FOLDERS


def test_errors_that_only_tell_of_an_absence_do_not_hide_it() -> None:
    with a_v1_site(adapted(BACKENDS + "SwallowingBackend")) as site:
        order = made(site)
        campus().FOLDERS.clear()
        campus().STATE["fails"] = "get 404"
        site.sync()
        assert site.resource(order).state == "Erred"


def test_an_answer_that_a_resource_does_not_exist_is_an_absence() -> None:
    with a_v1_site(adapted(BACKENDS + "RaisingBackend")) as site:
        order = made(site)
        end = site.sandbox.customer.place_terminate_order(site.resource(order))
        site.cycle()
        assert site.state(end) == "done"
        assert not campus().FOLDERS


def test_a_name_that_an_interrupted_creation_took_errs_no_order() -> None:
    with a_v1_site(adapted(BACKENDS + "BreakingBackend")) as site:
        order = site.order(site.project(ada="ada01"), "Ocean data")
        campus().STATE["fails"] = "mark 500"
        with contextlib.suppress(TemporaryError):
            site.cycle()
        campus().STATE["fails"] = ""
        report = site.cycle()
        assert site.state(order) == "executing"
        assert "an earlier attempt to create it was interrupted" in report.results[0].reason
        assert "409" in report.results[0].reason


def test_a_plugin_that_only_reports_finds_no_resource_missing() -> None:
    with a_v1_site(adapted(BACKENDS + "ReportingBackend")) as site:
        order = site.made_elsewhere("a-slurm-account")
        assert site.report().failures == ()
        assert site.resource(order).state == "OK"
        assert site.sandbox.customer.usages(site.resource(order))["cpu"] == 3
