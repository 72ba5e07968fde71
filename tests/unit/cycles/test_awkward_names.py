"""Names from outside never become an option, a list, or a second word of a command."""

from __future__ import annotations

import copy

import pytest

from harness import SimulatedSite

AWKWARD = [
    "a,root",
    "x[1-3]",
    "-i",
    "../x",
    "name=root",
    "",
    "a" * 300,
    "Ünï",
    "A B",
    "a\nb",
    "root",
    "a|b",
    "a'b",
    'a"b',
    "%",
    "*",
    "a;b",
    "$(id)",
    "\x00",
]
IDS = [repr(name[:12]) for name in AWKWARD]


@pytest.mark.guarantee("orders: Names")
@pytest.mark.guarantee("A name from outside never becomes an option, a list or a second word")
@pytest.mark.parametrize("username", AWKWARD, ids=IDS)
def test_an_awkward_username_is_left_out_and_its_team_is_served(
    testbed: SimulatedSite, username: str
) -> None:
    project = testbed.project(ada="ada01", odd=username)
    order = testbed.order(project)
    before = copy.deepcopy(testbed.slurm.state.accounts["root"])
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}
    assert testbed.accounts == {"c_uni", "p_climate", testbed.resource(order).backend_id}
    root = testbed.slurm.state.accounts["root"]
    assert set(root.members) - set(before.members) <= {"ada01"}
    assert set(testbed.slurm.state.users) == {"root", "ada01"}


@pytest.mark.guarantee("orders: Names")
@pytest.mark.guarantee("A name from outside never becomes an option, a list or a second word")
@pytest.mark.parametrize("slug", [name for name in AWKWARD if name not in ("root", "-i")])
@pytest.mark.parametrize("kind", ["customer", "project"])
def test_an_awkward_slug_fails_its_own_order_and_touches_nothing(
    testbed: SimulatedSite, kind: str, slug: str
) -> None:
    side = testbed.sandbox.customer
    customer = side.add_customer("C", slug if kind == "customer" else "fine")
    odd = testbed.order(side.add_project("P", customer, slug if kind == "project" else "fine"))
    good = testbed.order(testbed.project("good", "other", ada="ada01"))
    testbed.cycle()
    assert testbed.state(good) == "done"
    assert testbed.accounts == {"c_other", "p_good", testbed.resource(good).backend_id}
    assert testbed.state(odd) == "erred"
    assert side.current(odd).error_message


@pytest.mark.guarantee("orders: Names")
@pytest.mark.parametrize("slug", ["a,root", "x[1-3]", "Ünï", "A B", "a" * 300])
def test_an_awkward_resource_slug_fails_its_order(testbed: SimulatedSite, slug: str) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.customer.edit(testbed.resource(order), slug=slug)
    testbed.cycle()
    assert testbed.state(order) == "erred"
    assert testbed.accounts == set()


def test_a_name_without_ascii_letters_is_served_because_of_the_prefixes(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    customer = side.add_customer("\N{HIRAGANA LETTER A}", "-1")
    project = side.add_project("\N{HIRAGANA LETTER A}", customer, "-2")
    side.add_member(project, testbed.person("ada", "ada01"))
    order = testbed.order(project)
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert {"c_-1", "p_-2"} <= testbed.accounts
    assert testbed.members(order) == {"ada01"}


def test_slugs_are_compared_and_made_in_lower_case(testbed: SimulatedSite) -> None:
    project = testbed.project("Climate-X", "UNI", ada="ada01")
    order = testbed.order(project)
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert {"c_uni", "p_climate-x"} <= testbed.accounts
    assert testbed.members(order) == {"ada01"}
    testbed.cycle()
    assert testbed.slurm.commands_run["sacctmgr write"] <= 6


@pytest.mark.guarantee("orders: Names")
def test_prefixes_that_make_two_accounts_the_same_are_refused_by_name(
    testbed: SimulatedSite,
) -> None:
    testbed = testbed.with_(settings={"customer_prefix": "x_", "project_prefix": "x_"})
    order = testbed.order(testbed.project("same", "same", ada="ada01"))
    testbed.cycle()
    assert testbed.state(order) == "erred"
    message = testbed.sandbox.customer.current(order).error_message
    assert "customer" in message
    assert "project" in message
    assert "x_same" in message
    assert testbed.accounts == set()


def test_a_texts_strange_characters_do_not_break_the_next_reading(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    customer = side.add_customer("A | B\n'quoted' \"twice\"\t", "uni")
    project = side.add_project("C|root||\nroot|", customer, "climate")
    side.add_member(project, testbed.person("ada", "ada01"))
    order = testbed.order(project, "D|\n| 100% ü")
    testbed.cycle()
    assert testbed.state(order) == "done"
    update = side.place_update_order(testbed.resource(order), {"cpu": 11})
    testbed.cycle()
    assert testbed.state(update) == "done"
