"""A site of twenty with one odd thing: nineteen are served, and nothing is taken for gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from harness.metering import Meter, a_meter
from harness.odd_rows import OddRows
from harness.testbed import SimulatedSite, a_simulated_site
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent_sandbox import Resource

TWENTY = range(20)
ODD = "p7"
"""The slug of the project with the odd thing."""


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[SimulatedSite]:
    """Twenty projects, each with a resource and a member; in all of them somebody is to leave."""
    with a_simulated_site(tmp_path / "lock") as testbed:
        yield testbed


def name(number: int) -> str:
    return f"p{number}"


def populate(testbed: SimulatedSite) -> dict[str, Resource]:
    """By project slug. Everybody's team has changed since: two to join, one to leave."""
    side = testbed.sandbox.customer
    projects = {}
    orders = {}
    for number in TWENTY:
        slug = name(number)
        people = {f"{slug}-ada": f"ada{number}", f"{slug}-bob": f"bob{number}"}
        projects[slug] = testbed.project(slug, **people)
        orders[slug] = testbed.order(projects[slug], f"run {number}")
    testbed.cycle()
    testbed.sync()
    resources = {slug: testbed.resource(order) for slug, order in orders.items()}
    for number, (slug, project) in enumerate(projects.items()):
        bob = next(u for u in side.world.users.values() if u.username == f"{slug}-bob")
        side.remove_member(project, bob)
        side.add_member(project, testbed.person(f"{slug}-kim", f"kim{number}"))
    return resources


def odd(
    testbed: SimulatedSite, path: str, field: str, value: str, **changes: Any
) -> tuple[SimulatedSite, OddRows]:
    """The house, with the row odd whose ``field`` is ``value``."""
    transport = OddRows(path, lambda row: str(row.get(field)).replace("-", "") == value, changes)
    return testbed.with_(transport=transport.between), transport


def members(testbed: SimulatedSite, resources: dict[str, Resource]) -> dict[str, set[str]]:
    return {slug: testbed.members_of(resource) for slug, resource in resources.items()}


def as_wanted(number: int) -> set[str]:
    return {f"ada{number}", f"kim{number}"}


def as_before(number: int) -> set[str]:
    return {f"ada{number}", f"bob{number}"}


def offering_user(testbed: SimulatedSite, username: str) -> str:
    users = testbed.sandbox.customer.world.offering_users.values()
    return next(user.uuid for user in users if user.username == username)


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"cpu": "lots"}},
        {"paused": "perhaps"},
        {"state": 7},
        {"backend_metadata": ["qos"]},
        {"slug": {"a": 1}},
        {"project_uuid": "nobody"},
        {"created": "yesterday"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_one_odd_resource_leaves_its_own_account_alone(
    testbed: SimulatedSite, changes: dict[str, Any]
) -> None:
    resources = populate(testbed)
    site, transport = odd(testbed, "resources/", "uuid", resources[ODD].uuid, **changes)
    report = site.with_(removals_allowed=True).sync()
    assert transport.struck
    found = members(testbed, resources)
    assert found == {name(n): as_before(n) if name(n) == ODD else as_wanted(n) for n in TWENTY}
    assert any("not understood" in failure for failure in report.failures)
    assert all(r.state == "OK" for r in map(testbed.sandbox.customer.current, resources.values()))


def test_a_resource_that_does_not_even_tell_its_account_stops_removals_and_nothing_else(
    testbed: SimulatedSite,
) -> None:
    resources = populate(testbed)
    site, _ = odd(testbed, "resources/", "uuid", resources[ODD].uuid, backend_id=["a"])
    site.with_(removals_allowed=True).sync()
    found = members(testbed, resources)
    everybody = {name(n): as_before(n) | as_wanted(n) for n in TWENTY}
    assert found == {**everybody, ODD: as_before(7)}


@pytest.mark.parametrize(
    "changes",
    [{"state": 5}, {"user_uuid": KeyError}, {"is_restricted": "x"}, {"created": "?"}],
    ids=lambda changes: next(iter(changes)),
)
def test_one_odd_offering_user_stays_where_he_is(
    testbed: SimulatedSite, changes: dict[str, Any]
) -> None:
    resources = populate(testbed)
    user = offering_user(testbed, "ada7")
    site, transport = odd(testbed, "offering-users/", "uuid", user, **changes)
    site.with_(removals_allowed=True, remove_unknown_users=True).sync()
    assert transport.struck
    found = members(testbed, resources)
    assert found == {name(n): as_wanted(n) for n in TWENTY}


@pytest.mark.parametrize(
    "changes",
    [{"expiration_time": "soon"}, {"user_uuid": "nobody"}, {"role_name": 9}],
    ids=lambda changes: next(iter(changes)),
)
def test_one_odd_project_role_takes_nobody_out_of_its_project(
    testbed: SimulatedSite, changes: dict[str, Any]
) -> None:
    resources = populate(testbed)
    project = resources[ODD].project
    site, transport = odd(testbed, "project_permissions/", "project_uuid", project, **changes)
    site.with_(removals_allowed=True).sync()
    assert transport.struck
    expected = {name(n): as_wanted(n) for n in TWENTY}
    assert members(testbed, resources) == {**expected, ODD: as_before(7) | as_wanted(7)}


def test_one_odd_service_account_is_kept_and_everybody_else_served(testbed: SimulatedSite) -> None:
    resources = populate(testbed)
    side = testbed.sandbox.customer
    project = side.world.projects[resources[ODD].project]
    account = side.add_service_account(project, "svc7")
    testbed.with_(removals_allowed=True).sync()
    site, transport = odd(testbed, "service_accounts/", "uuid", account.uuid, state=["OK"])
    site.with_(removals_allowed=True, remove_unknown_users=True).sync()
    assert transport.struck
    expected = {name(n): as_wanted(n) for n in TWENTY}
    assert members(testbed, resources) == {**expected, ODD: as_wanted(7) | {"svc7"}}


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"cpu": "lots"}},
        {"attributes": "none"},
        {"marketplace_resource_uuid": "nothing"},
        {"type": KeyError},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_one_odd_order_is_left_and_the_others_are_done(
    testbed: SimulatedSite, changes: dict[str, Any]
) -> None:
    orders = {name(n): testbed.order(testbed.project(name(n)), f"run {n}") for n in TWENTY}
    site, transport = odd(testbed, "orders/", "uuid", orders[ODD].uuid, **changes)
    site.cycle()
    assert transport.struck
    states = {slug: testbed.state(order) for slug, order in orders.items()}
    assert {slug for slug, state in states.items() if state != "done"} == {ODD}
    assert states[ODD] in ("executing", "pending-provider")
    testbed.cycle()
    assert testbed.state(orders[ODD]) == "done"


def test_orders_are_done_while_a_resource_of_others_is_not_understood(
    testbed: SimulatedSite,
) -> None:
    resources = populate(testbed)
    site, transport = odd(
        testbed, "resources/", "uuid", resources[ODD].uuid, limits={"cpu": "lots"}
    )
    orders = [testbed.order(testbed.project(name(n)), f"more {n}") for n in TWENTY]
    site.cycle()
    assert transport.struck
    assert {testbed.state(order) for order in orders} == {"done"}


def test_an_account_whose_resource_is_not_understood_is_given_to_nobody(
    testbed: SimulatedSite,
) -> None:
    first = testbed.created(testbed.project("p1"), "first")
    side = testbed.sandbox.customer
    order = testbed.order(testbed.project("p2"), "second")
    other = testbed.order(testbed.project("p3"), "third")
    side.world.put(replace(testbed.resource(order), slug=first.slug, project=first.project))
    site, _ = odd(testbed, "resources/", "uuid", first.uuid, limits={"cpu": "lots"})
    site.cycle()
    assert testbed.state(other) == "done"
    assert testbed.resource(order).backend_id == ""
    assert testbed.state(order) in ("executing", "pending-provider")


@pytest.fixture
def meter() -> Iterator[Meter]:
    with a_meter() as meter:
        yield meter


def used(meter: Meter) -> dict[str, Resource]:
    resources = {name(n): meter.resource(name(n)) for n in TWENTY}
    for resource in resources.values():
        meter.ledger.run(resource.backend_id, "ada", meter.sandbox.clock.now())
    meter.travel_on(2)
    return resources


@pytest.mark.parametrize("changes", [{"limits": {"cpu": "x"}}, {"created": "?"}, {"state": 3}])
def test_one_odd_resource_is_not_reported_and_the_others_are(
    meter: Meter, changes: dict[str, Any]
) -> None:
    resources = used(meter)
    transport = OddRows("resources/", lambda row: row.get("slug") == ODD, changes)
    report = meter.with_(transport=transport.between).report()
    assert transport.struck
    totals = {slug: meter.total(resource).get("cpu") for slug, resource in resources.items()}
    assert totals == {name(n): None if name(n) == ODD else Decimal(1) for n in TWENTY}
    assert any("no usage reported for a resource" in failure for failure in report.failures)
    meter.report()
    assert meter.total(resources[ODD]) == meter.total(resources["p1"])


def used_again(meter: Meter) -> dict[str, Resource]:
    """Resources with usage that is reported, and more that is not yet."""
    resources = used(meter)
    meter.report()
    for resource in resources.values():
        meter.ledger.run(resource.backend_id, "ada", meter.sandbox.clock.now())
    meter.travel_on(2)
    return resources


@pytest.mark.parametrize("changes", [{"usage": "much"}, {"date": "yesterday"}])
def test_one_odd_figure_of_waldur_keeps_back_its_resource_alone(
    meter: Meter, changes: dict[str, Any]
) -> None:
    resources = used_again(meter)
    uuid = resources[ODD].uuid
    transport = OddRows(
        "component-usages/",
        lambda row: str(row.get("resource_uuid")).replace("-", "") == uuid,
        changes,
    )
    report = meter.with_(transport=transport.between).report()
    assert transport.struck
    totals = {slug: meter.total(resource).get("cpu") for slug, resource in resources.items()}
    assert totals == {name(n): Decimal(1 if name(n) == ODD else 2) for n in TWENTY}
    assert any(ODD in failure and "cannot be decoded" in failure for failure in report.failures)


def test_one_odd_part_of_a_user_stops_nothing(meter: Meter) -> None:
    resources = used_again(meter)
    uuid = resources[ODD].uuid
    transport = OddRows(
        "component-user-usages/",
        lambda row: str(row.get("resource_uuid")).replace("-", "") == uuid,
        {"usage": "much"},
    )
    meter.with_(transport=transport.between).report()
    assert transport.struck
    parts = [meter.parts(resource)["cpu"] for resource in resources.values()]
    assert parts == [{"ada": Decimal(2)}] * 20


class OddListing:
    """A cluster whose listing of accounts has one odd row."""

    def __init__(self, inner: Runner, found: str, odd: str) -> None:
        self._inner, self._found, self._odd = inner, found, odd

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self._inner.run(argv, timeout)
        if "withassoc" not in argv:
            return result
        return CommandResult(
            result.argv, result.exit_code, result.stdout.replace(self._found, self._odd), ""
        )


@pytest.mark.parametrize(
    ("found", "odd_text"),
    [
        ("|cpu=600000|p_p7\n", "|cpu=many|p_p7\n"),
        ("|cpu=600000|p_p7\n", "|mem=4.00?|p_p7\n"),
        ("|cpu=600000|p_p7\n", "|cpu=600000|p_|7\nand more\n"),
    ],
)
def test_one_odd_account_of_the_cluster_stops_nobody(
    testbed: SimulatedSite, found: str, odd_text: str
) -> None:
    resources = populate(testbed)
    site = testbed.with_(
        runner=lambda inner: OddListing(inner, found, odd_text), removals_allowed=True
    )
    site.sync()
    assert members(testbed, resources) == {name(n): as_wanted(n) for n in TWENTY}
    order = testbed.order(testbed.project("p8"), "more")
    site.cycle()
    assert testbed.state(order) == "done"
    limits = {slug: testbed.sandbox.customer.current(r).limits for slug, r in resources.items()}
    assert all(each["cpu"] == 10 for each in limits.values())


@pytest.mark.parametrize("username", ["a|b", "eve,mallory", "br[1-3]", "-all", "new\nline", "a b"])
def test_one_odd_username_keeps_nobody_else_out(testbed: SimulatedSite, username: str) -> None:
    resources = populate(testbed)
    side = testbed.sandbox.customer
    project = side.world.projects[resources[ODD].project]
    side.add_member(project, testbed.person("odd", username))
    testbed.with_(removals_allowed=True).sync()
    found = members(testbed, resources)
    assert {n: found[n] - {username} for n in found} == {name(n): as_wanted(n) for n in TWENTY}
