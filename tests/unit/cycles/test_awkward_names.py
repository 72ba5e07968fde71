"""Names from outside never become an option, a list, or a second word of a command."""

from __future__ import annotations

import copy

import pytest

from harness import House

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


@pytest.mark.parametrize("username", AWKWARD, ids=IDS)
def test_an_awkward_username_is_left_out_and_its_team_is_served(
    house: House, username: str
) -> None:
    project = house.project(ada="ada01", odd=username)
    order = house.order(project)
    before = copy.deepcopy(house.slurm.state.accounts["root"])
    house.cycle()
    assert house.state(order) == "done"
    assert house.members(order) == {"ada01"}
    assert house.accounts == {"c_uni", "p_climate", house.resource(order).backend_id}
    root = house.slurm.state.accounts["root"]
    assert set(root.members) - set(before.members) <= {"ada01"}
    assert set(house.slurm.state.users) == {"root", "ada01"}


@pytest.mark.parametrize("slug", [name for name in AWKWARD if name not in ("root", "-i")])
@pytest.mark.parametrize("kind", ["customer", "project"])
def test_an_awkward_slug_fails_its_own_order_and_touches_nothing(
    house: House, kind: str, slug: str
) -> None:
    side = house.sandbox.customer
    customer = side.add_customer("C", slug if kind == "customer" else "fine")
    odd = house.order(side.add_project("P", customer, slug if kind == "project" else "fine"))
    good = house.order(house.project("good", "other", ada="ada01"))
    house.cycle()
    assert house.state(good) == "done"
    assert house.accounts == {"c_other", "p_good", house.resource(good).backend_id}
    assert house.state(odd) == "erred"
    assert side.current(odd).error_message


@pytest.mark.parametrize("slug", ["a,root", "x[1-3]", "Ünï", "A B", "a" * 300])
def test_an_awkward_resource_slug_fails_its_order(house: House, slug: str) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.customer.edit(house.resource(order), slug=slug)
    house.cycle()
    assert house.state(order) == "erred"
    assert house.accounts == set()


def test_a_name_without_ascii_letters_is_served_because_of_the_prefixes(house: House) -> None:
    side = house.sandbox.customer
    customer = side.add_customer("\N{HIRAGANA LETTER A}", "-1")
    project = side.add_project("\N{HIRAGANA LETTER A}", customer, "-2")
    side.add_member(project, house.person("ada", "ada01"))
    order = house.order(project)
    house.cycle()
    assert house.state(order) == "done"
    assert {"c_-1", "p_-2"} <= house.accounts
    assert house.members(order) == {"ada01"}


def test_slugs_are_compared_and_made_in_lower_case(house: House) -> None:
    project = house.project("Climate-X", "UNI", ada="ada01")
    order = house.order(project)
    house.cycle()
    assert house.state(order) == "done"
    assert {"c_uni", "p_climate-x"} <= house.accounts
    assert house.members(order) == {"ada01"}
    house.cycle()
    assert house.slurm.commands_run["sacctmgr write"] <= 6


def test_prefixes_that_make_two_accounts_the_same_are_refused_by_name(house: House) -> None:
    house = house.with_(settings={"customer_prefix": "x_", "project_prefix": "x_"})
    order = house.order(house.project("same", "same", ada="ada01"))
    house.cycle()
    assert house.state(order) == "erred"
    message = house.sandbox.customer.current(order).error_message
    assert "customer" in message
    assert "project" in message
    assert "x_same" in message
    assert house.accounts == set()


def test_a_texts_strange_characters_do_not_break_the_next_reading(house: House) -> None:
    side = house.sandbox.customer
    customer = side.add_customer("A | B\n'quoted' \"twice\"\t", "uni")
    project = side.add_project("C|root||\nroot|", customer, "climate")
    side.add_member(project, house.person("ada", "ada01"))
    order = house.order(project, "D|\n| 100% ü")
    house.cycle()
    assert house.state(order) == "done"
    update = side.place_update_order(house.resource(order), {"cpu": 11})
    house.cycle()
    assert house.state(update) == "done"
