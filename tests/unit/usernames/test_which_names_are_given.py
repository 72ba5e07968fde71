"""Which names are given, to whom, and which are not; stopping and looking first."""

from __future__ import annotations

from uuid import UUID

import pytest

from unit.usernames.people import Place
from waldur_site_agent.backends import (
    AccountLinkingRequired,
    TemporaryError,
)
from waldur_site_agent.cycles.usernames import UsernameResult

LINKING = "Pending account linking"


@pytest.mark.parametrize(
    "name", ["", "Ada", "1ada", "a b", "-i", "ada\n", "ünï", "root", "a,b", "x[1-3]", "a" * 101]
)
def test_an_unfit_name_is_refused_with_the_reason(new_place: Place, name: str) -> None:
    new_place.person("ada")
    new_place.script.made = {"ada": name}
    report = new_place.cycle()
    assert new_place.shown("ada") == ("Error creating", "")
    (change,) = report.changes
    assert "cannot be the username" in change.reason


@pytest.mark.parametrize("name", ["a,b", "x[1-3]", "-i", "a b", "Root", "a" * 101, "../x"])
def test_not_even_a_name_that_was_found_may_be_dangerous(new_place: Place, name: str) -> None:
    new_place.person("ada")
    new_place.script.found = {"ada": name}
    new_place.cycle()
    assert new_place.shown("ada") == ("Error creating", "")


@pytest.mark.parametrize(
    "state", ["OK", "Creating", "Requested deletion", "Deleting", "Error deleting"]
)
def test_a_name_that_somebody_has_is_given_to_nobody_else(place: Place, state: str) -> None:
    place.person("ada", state, "Lovelace")
    place.person("bob")
    place.script.made = {"bob": "lovelace"}
    report = place.cycle()
    assert place.shown("bob") == ("Error creating", "")
    (change,) = [each for each in report.changes if each.user.user_username == "bob"]
    assert 'username "lovelace" belongs to another user' in change.reason
    assert report.duplicates == {}


def test_a_name_is_free_again_once_its_account_is_deleted(place: Place) -> None:
    place.person("ada", "Deleted", "lovelace")
    place.person("bob")
    place.script.made = {"bob": "lovelace"}
    assert place.cycle().duplicates == {}
    assert place.shown("bob") == ("OK", "lovelace")


def test_of_two_new_people_only_the_first_gets_a_name(place: Place) -> None:
    for name in ("ada", "bob"):
        place.person(name)
    place.script.made = {"ada": "same", "bob": "same"}
    report = place.cycle()
    assert place.shown("ada") == ("OK", "same")
    assert place.shown("bob") == ("Error creating", "")
    assert report.duplicates == {}
    assert report.failed


def test_duplicates_in_waldur_are_reported_in_every_cycle(place: Place) -> None:
    place.person("ada", "OK", "same")
    place.person("bob", "OK", "Same")
    place.person("eve", "OK", "eve")
    for _ in range(2):
        report = place.cycle()
        assert [user.user_username for user in report.duplicates["same"]] == ["ada", "bob"]
        assert set(report.duplicates) == {"same"}
    warnings = place.lines("warning")
    assert [line["users"] for line in warnings] == [["ada", "bob"]] * 2
    assert place.writes() == []


def test_the_backend_hears_once_who_has_which_name(new_place: Place) -> None:
    new_place.person("ada", "OK", "Ada")
    new_place.person("bob", "Deleted", "bob")
    new_place.person("cyd")
    new_place.person("dan")
    new_place.cycle()
    holder = UUID(new_place.account("ada").user)
    assert new_place.script.heard == [{"ada": frozenset({holder})}]


@pytest.mark.parametrize("error", [TemporaryError("directory away"), RuntimeError("a defect")])
def test_nothing_is_done_when_the_backend_is_not_ready(place: Place, error: Exception) -> None:
    place.person("ada")
    place.script.deaf = error
    report = place.cycle()
    assert place.writes() == []
    assert report.failed


def test_a_dry_run_shows_what_would_be_and_changes_nothing(place: Place) -> None:
    place.person("ada")
    place.person("bob")
    place.script.found = {"ada": "lovelace"}
    place.script.made = {"bob": AccountLinkingRequired("Link it")}
    place.script.generating_has_effects = False  # type: ignore[misc] # of this one only
    report = place.cycle(dry_run=True)
    assert place.writes() == []
    assert [change.result for change in report.changes] == [UsernameResult.PLANNED] * 2
    assert [(user.state, user.username) for user in report.users] == [
        ("OK", "lovelace"),
        (LINKING, ""),
    ]


def test_a_dry_run_makes_no_names_that_leave_traces(place: Place) -> None:
    place.person("ada")
    place.script.made = {"ada": "lovelace"}
    report = place.cycle(dry_run=True)
    assert place.script.generated_for == []
    (change,) = report.changes
    assert change.result is UsernameResult.PLANNED
    assert "not in a dry run" in change.reason


def test_an_agent_that_stops_begins_with_nobody_new(new_place: Place) -> None:
    for number in range(5):
        new_place.person(f"p{number}")
        new_place.script.made[f"p{number}"] = f"name{number}"
    new_place.stopping = lambda: len(new_place.script.generated_for) >= 2
    new_place.cycle()
    named = [number for number in range(5) if new_place.shown(f"p{number}")[1]]
    assert named == [0, 1]


def test_no_name_is_given_on_the_word_of_half_a_list(new_place: Place) -> None:
    new_place.person("ada")
    new_place.person("bob")
    new_place.script.made = {"ada": "x", "bob": "y"}
    new_place.sandbox.faults.add("marketplace_offering_users_list", "short_page", times=None)
    with pytest.raises(TemporaryError):
        new_place.cycle()
    assert new_place.writes() == []


def test_many_people_are_served_in_one_cycle(new_place: Place) -> None:
    for number in range(70):
        new_place.person(f"p{number}")
        new_place.script.made[f"p{number}"] = f"name{number}"
    report = new_place.cycle()
    assert len(report.changes) == 70
    assert new_place.writes() == ["partial_update"] * 70
    assert all(new_place.shown(f"p{n}") == ("OK", f"name{n}") for n in range(70))
