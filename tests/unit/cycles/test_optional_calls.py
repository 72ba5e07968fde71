"""What an old server lacks is not what this token may not do; neither stops the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from harness import SimulatedSite
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.partial_answers import call_optional, write_optional
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur import AbsentOperationError, AccessDeniedError

ROLES = "marketplace_service_providers_project_permissions_list"
SERVICE = "marketplace_service_providers_project_service_accounts_list"
SERVICE_OF_OFFERING = "marketplace_provider_offerings_list_project_service_accounts_list"


@pytest.fixture
def site(testbed: SimulatedSite, only_warnings_are_logged: None) -> Iterator[Site]:  # noqa: ARG001 - first
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(10))
    with testbed.agent() as site:
        yield site


def lines_about(logs: list[Any], event: str) -> list[dict[str, Any]]:
    return [dict(line) for line in logs if line["event"] == event]


def absent() -> bool:
    raise AbsentOperationError("HTTP 404")


def denied() -> None:
    raise AccessDeniedError("HTTP 403")


def unexpected() -> None:
    raise AssertionError("the call was tried again")


def test_a_call_that_the_server_lacks_is_made_once_and_logged_once(site: Site) -> None:
    with capture_logs() as logs:
        for ask in (absent, absent, unexpected):
            with pytest.raises(AbsentOperationError):
                call_optional(site, "user_limits", ask, "members have no limits")
    (line,) = lines_about(logs, "API call not available on this Waldur")
    assert (line["call"], line["log_level"]) == ("user_limits", "info")
    assert line["effect"] == "members have no limits"


def test_a_call_that_the_token_may_not_make_is_a_warning_once(site: Site) -> None:
    with capture_logs() as logs:
        assert not write_optional(site, "set_limits", denied, "a_run")
        assert not write_optional(site, "set_limits", unexpected, "a_run")
    (line,) = logs
    assert (line["log_level"], line["call"]) == ("warning", "set_limits")
    assert "denied" in line["event"]


def test_another_job_at_the_same_server_knows_what_it_lacks_but_not_what_is_denied(
    testbed: SimulatedSite, site: Site
) -> None:
    with pytest.raises(AbsentOperationError):
        call_optional(site, "user_limits", absent)
    write_optional(site, "set_limits", denied)
    with testbed.agent() as other:
        other.server_calls.update(site.server_calls)
        with pytest.raises(AbsentOperationError):
            call_optional(other, "user_limits", unexpected)
        assert write_optional(other, "set_limits", lambda: None)


def test_both_are_tried_again_after_a_day(testbed: SimulatedSite) -> None:
    moment = datetime(2026, 11, 2, tzinfo=UTC)
    testbed = testbed.with_(now=lambda: moment)
    with testbed.agent() as site:
        write_optional(site, "set_limits", denied)
        with pytest.raises(AbsentOperationError):
            call_optional(site, "user_limits", absent)
        moment += timedelta(days=1, seconds=1)
        assert write_optional(site, "set_limits", lambda: None)
        assert call_optional(site, "user_limits", lambda: 7) == 7


def test_a_call_that_worked_before_is_not_believed_to_be_absent(site: Site) -> None:
    call_optional(site, "service_accounts", lambda: ())
    for _ in range(2):
        with pytest.raises(TemporaryError, match="the call worked before"):
            call_optional(site, "service_accounts", absent)


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.parametrize("status", [400, 403, 404, 405, 409])
def test_people_leave_where_the_list_of_all_roles_is_refused_for_good(
    testbed: SimulatedSite, status: int
) -> None:
    project = testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.remove_member(project, "bob")
    testbed.sandbox.faults.add(ROLES, "status", status=status, times=None)
    with testbed.agent() as site:
        for _ in range(2):
            report = sync_membership(site)
            assert not report.failed, report
            assert report.removals_suspended == ""
    assert testbed.members_of(resource) == {"ada01"}


def test_nobody_leaves_while_a_list_fails_for_the_moment_and_everybody_says_so(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.remove_member(project, "bob")
    testbed.sandbox.faults.add(ROLES, "status", status=502, times=None)
    report = testbed.sync()
    assert report.failed
    assert report.removals_suspended.startswith("project roles could not be read: ")
    assert testbed.members_of(resource) == {"ada01", "bob01"}
    testbed.sandbox.faults.clear()
    assert not testbed.sync().failed
    assert testbed.members_of(resource) == {"ada01"}


def test_lists_that_a_server_lacks_fail_nothing_and_cost_requests_once(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    for operation in (ROLES, SERVICE, SERVICE_OF_OFFERING):
        testbed.sandbox.faults.add(operation, "html", status=404, times=None)
    testbed.sandbox.customer.remove_member(project, "bob")
    with testbed.agent() as site:
        for _ in range(3):
            assert not sync_membership(site).failed
    assert testbed.members_of(resource) == {"ada01"}
    requests = testbed.sandbox.requests
    assert [requests.count(o) for o in (ROLES, SERVICE, SERVICE_OF_OFFERING)] == [1, 1, 1]
