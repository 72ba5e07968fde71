"""What becomes of people without usernames, on servers of both generations."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from uuid import UUID

import pytest

from unit.usernames.people import Place, a_place
from waldur_site_agent.backends import (
    AccountLinkingRequired,
    AdditionalValidationRequired,
    NoUsernames,
    PermanentError,
    TemporaryError,
)
from waldur_site_agent.backends.backend_settings import BackendSettings
from waldur_site_agent.cycles.usernames import GivenUsernames, UsernameResult, sync_usernames
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent.waldur import Waldur

IN_THE_MAKING = (
    "Requested",
    "Creating",
    "Error creating",
    "Pending account linking",
    "Pending additional validation",
)
LINKING, VALIDATION = IN_THE_MAKING[3:]


@pytest.mark.parametrize("state", IN_THE_MAKING)
def test_a_person_gets_the_name_that_the_backend_makes(place: Place, state: str) -> None:
    place.person("ada", state)
    place.script.made = {"ada": "lovelace"}
    report = place.cycle()
    assert place.shown("ada") == ("OK", "lovelace")
    (user,) = report.users
    assert (user.state, user.username) == ("OK", "lovelace")
    (change,) = report.changes
    assert (change.what, change.result) == ("username lovelace", UsernameResult.DONE)
    assert not report.failed


def test_a_new_person_costs_one_request_where_the_name_completes_the_account(
    new_place: Place,
) -> None:
    new_place.person("ada")
    new_place.script.made = {"ada": "lovelace"}
    new_place.cycle()
    assert new_place.writes() == ["partial_update"]


def test_a_new_person_costs_two_requests_where_it_does_not(old_place: Place) -> None:
    old_place.person("ada")
    old_place.script.made = {"ada": "lovelace"}
    old_place.cycle()
    assert old_place.writes() == ["partial_update", "set_ok"]


@pytest.mark.guarantee("A second cycle with no news writes nothing")
def test_a_second_cycle_writes_nothing(place: Place) -> None:
    for state in IN_THE_MAKING:
        place.person(f"named {state}", state)
        place.person(f"linking {state}", state)
        place.person(f"refused {state}", state)
        place.person(f"away {state}", state)
        place.person(f"nameless {state}", state)
        place.script.made |= {
            f"named {state}": f"name{IN_THE_MAKING.index(state)}",
            f"linking {state}": AccountLinkingRequired("Link it", "https://id.example.com/"),
            f"refused {state}": PermanentError("blocked"),
            f"away {state}": TemporaryError("directory away"),
        }
    place.cycle()
    assert place.writes()
    place.cycle()
    assert place.writes() == []


def test_the_name_that_a_person_has_already_comes_first(place: Place) -> None:
    place.person("ada")
    place.script.found = {"ada": "Lovelace@site"}
    place.script.made = {"ada": "another"}
    place.cycle()
    assert place.shown("ada") == ("OK", "Lovelace@site")
    assert place.script.generated_for == []


def test_nobody_with_a_working_account_is_asked_about(place: Place) -> None:
    for state in ("OK", "Requested deletion", "Deleting", "Deleted", "Error deleting"):
        place.person(state, state, f"user{len(state)}")
    place.script.made = {"OK": "other", "Deleted": "other"}
    report = place.cycle()
    assert place.writes() == []
    assert report.changes == ()
    assert place.script.generated_for == []


def test_the_base_backend_changes_no_state(place: Place) -> None:
    for state in IN_THE_MAKING:
        place.person(state, state)
    place.backend = NoUsernames(BackendSettings())
    report = place.cycle()
    assert place.writes() == []
    assert [place.shown(state) for state in IN_THE_MAKING] == [(s, "") for s in IN_THE_MAKING]
    assert not report.failed


@pytest.mark.parametrize("policy", ["waldur_username", "freeipa", None])
def test_names_that_waldur_makes_are_left_to_it(place: Place, policy: str | None) -> None:
    place.person("ada")
    place.script.made = {"ada": "lovelace"}
    options = {"service_provider_can_create_offering_user": True}
    if policy:
        options |= {"username_generation_policy": policy}  # type: ignore[dict-item] # any JSON
    place.sandbox.customer.edit(place.sandbox.offering, plugin_options=options)
    report = place.cycle()
    assert place.writes() == []
    assert report.policy_of_others == (policy or "none")
    assert place.script.generated_for == []


@pytest.mark.parametrize(
    ("error", "state"),
    [(AccountLinkingRequired, LINKING), (AdditionalValidationRequired, VALIDATION)],
)
@pytest.mark.parametrize("before", IN_THE_MAKING)
def test_a_person_who_must_act_is_told_what_to_do(
    place: Place, before: str, error: type[AccountLinkingRequired], state: str
) -> None:
    place.person("ada", before)
    place.script.made = {"ada": error("Please confirm", "https://id.example.com/ada")}
    report = place.cycle()
    account = place.account("ada")
    assert account.state == state
    assert account.service_provider_comment == "Please confirm"
    assert account.service_provider_comment_url == "https://id.example.com/ada"
    assert [user.state for user in report.users] == [state]
    assert not report.failed


def test_a_new_person_begins_to_be_created_before_waiting(place: Place) -> None:
    place.person("ada")
    place.script.made = {"ada": AccountLinkingRequired("Link it")}
    place.cycle()
    assert place.writes() == ["begin_creating", "set_pending_account_linking"]


def test_a_person_is_told_when_what_to_do_changes(place: Place) -> None:
    place.person("ada")
    place.script.made = {"ada": AccountLinkingRequired("Link it", "https://id.example.com/1")}
    place.cycle()
    place.script.made = {"ada": AccountLinkingRequired("Link it", "https://id.example.com/2")}
    place.cycle()
    account = place.account("ada")
    assert account.state == LINKING
    assert account.service_provider_comment_url == "https://id.example.com/2"


def test_a_name_after_waiting_clears_what_the_person_was_told(place: Place) -> None:
    place.person("ada")
    place.script.made = {"ada": AccountLinkingRequired("Link it", "https://id.example.com/")}
    place.cycle()
    place.script.made = {"ada": "lovelace"}
    place.cycle()
    account = place.account("ada")
    assert (account.state, account.username) == ("OK", "lovelace")
    assert account.service_provider_comment == account.service_provider_comment_url == ""
    assert place.writes() == ["set_validation_complete", "partial_update"]


def test_a_name_after_silent_waiting_costs_one_request(new_place: Place) -> None:
    new_place.person("ada", LINKING)
    new_place.script.made = {"ada": "lovelace"}
    new_place.cycle()
    assert new_place.writes() == ["partial_update"]


def test_who_came_first_gets_the_name_however_the_list_is_sorted(new_place: Place) -> None:
    for name in ("late", "early", "between"):
        new_place.person(name)
    late = new_place.account("late")
    for days, name in enumerate(("early", "between"), -2):
        account = new_place.account(name)
        new_place.sandbox.customer.edit(account, created=late.created + timedelta(days=days))
    new_place.script.made = dict.fromkeys(("late", "early", "between"), "same")
    uuid = UUID(new_place.sandbox.offering.uuid)
    users = new_place.waldur.offering_users(uuid).items
    offering = new_place.waldur.offering(uuid)
    sync_usernames(new_place, offering, users[::-1], new_place.backend)
    assert new_place.shown("early") == ("OK", "same")


def test_a_refused_person_is_marked_once_and_tried_again_each_cycle(place: Place) -> None:
    place.person("ada")
    place.script.made = {"ada": PermanentError("no contract with this organization")}
    report = place.cycle()
    assert place.shown("ada") == ("Error creating", "")
    assert report.failed
    (change,) = report.changes
    assert change.result is UsernameResult.REFUSED
    assert change.reason == "no contract with this organization"
    place.cycle()
    assert place.writes() == []
    assert place.script.generated_for == ["ada", "ada"]
    place.script.made = {"ada": "lovelace"}
    place.cycle()
    assert place.shown("ada") == ("OK", "lovelace")


@pytest.mark.parametrize("error", [TemporaryError("directory away"), KeyError("oops")])
@pytest.mark.parametrize("state", IN_THE_MAKING)
def test_a_person_is_left_alone_while_the_backend_cannot_say(
    place: Place, state: str, error: Exception
) -> None:
    place.person("ada", state)
    place.script.found = {"ada": error}
    report = place.cycle()
    assert place.writes() == []
    assert place.shown("ada") == (state, "")
    assert report.failed
    assert [change.result for change in report.changes] == [UsernameResult.LEFT]


def test_a_defect_of_a_plugin_is_logged_with_its_traceback(new_place: Place) -> None:
    new_place.person("ada")
    new_place.script.made = {"ada": ZeroDivisionError("oops")}
    new_place.cycle()
    (line,) = new_place.lines("error")
    assert line["exc_info"]
    assert line["user"] == "ada"


def test_one_persons_failure_stops_nobody_else(place: Place) -> None:
    for name in ("ada", "bob", "cyd", "dan", "eve"):
        place.person(name)
    place.script.made = {
        "ada": KeyError("a defect"),
        "bob": TemporaryError("away"),
        "cyd": PermanentError("blocked"),
        "dan": AccountLinkingRequired("Link it"),
        "eve": "eve01",
    }
    report = place.cycle()
    assert place.shown("eve") == ("OK", "eve01")
    assert len(report.changes) == 5


def test_what_waldur_refuses_for_one_person_stops_nobody_else(place: Place) -> None:
    for name in ("ada", "bob"):
        place.person(name)
    place.script.made = {"ada": "ada01", "bob": "bob01"}
    operation = "marketplace_offering_users_partial_update"
    place.sandbox.faults.add(operation, "status", status=400)
    report = place.cycle()
    results = sorted(change.result.value for change in report.changes)
    assert results == ["done", "left"]
    assert len([user for user in report.users if user.username and user.state == "OK"]) == 1
    place.cycle()
    assert {place.shown("ada"), place.shown("bob")} == {("OK", "ada01"), ("OK", "bob01")}


def test_a_defect_of_the_agent_stops_nobody_else(
    new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_username(_waldur: Waldur, uuid: UUID, username: str) -> OfferingUser:
        if username == "ada01":
            raise ValueError("oops")
        return really_set(new_place.waldur, uuid, username)

    really_set = Waldur.set_username
    monkeypatch.setattr(Waldur, "set_username", set_username)
    for name in ("ada", "bob"):
        new_place.person(name)
        new_place.script.made[name] = f"{name}01"
    report = new_place.cycle()
    assert new_place.shown("bob") == ("OK", "bob01")
    assert [change.result.value for change in report.changes] == ["left", "done"]
    (line,) = new_place.lines("error")
    assert line["exc_info"]


@pytest.mark.parametrize(
    "operation", ["partial_update", "set_ok", "begin_creating", "set_pending_account_linking"]
)
def test_a_lost_answer_is_made_good_by_the_next_cycle(place: Place, operation: str) -> None:
    place.person("ada")
    place.person("bob")
    place.script.made = {"ada": "lovelace", "bob": AccountLinkingRequired("Link it")}
    place.sandbox.faults.add(f"marketplace_offering_users_{operation}", "lost_answer", times=9)
    place.cycle()
    place.sandbox.faults.clear()
    place.cycle()
    assert place.shown("ada") == ("OK", "lovelace")
    assert place.shown("bob") == (LINKING, "")


def test_an_account_left_ok_without_a_name_gets_one(place: Place) -> None:
    place.person("ada", "OK")
    place.script.made = {"ada": "lovelace"}
    place.cycle()
    assert place.shown("ada") == ("OK", "lovelace")
    assert place.writes() == ["partial_update"]


def test_a_person_whose_account_is_ok_cannot_be_told_to_wait(place: Place) -> None:
    place.person("ada", "OK")
    place.script.made = {"ada": AccountLinkingRequired("Link it")}
    report = place.cycle()
    assert place.writes() == []
    assert report.failed
    assert "Link it" in report.changes[0].reason


def test_on_a_server_without_states_a_person_just_gets_the_name() -> None:
    with a_place("7.6.5") as place:
        place.person("ada")
        place.script.made = {"ada": "lovelace"}
        report = place.cycle()
        assert place.account("ada").username == "lovelace"
        assert place.writes() == ["partial_update"]
        assert not report.failed


def test_a_name_that_was_set_before_only_needs_its_state(old_place: Place) -> None:
    old_place.person("ada", "Creating", "lovelace")
    old_place.script.found = {"ada": "lovelace"}
    old_place.cycle()
    assert old_place.shown("ada") == ("OK", "lovelace")
    assert old_place.writes() == ["set_ok"]


def test_an_account_that_somebody_made_ok_meanwhile_counts_as_done(old_place: Place) -> None:
    old_place.person("ada", "Creating", "lovelace")
    old_place.script.found = {"ada": "lovelace"}
    old_place.sandbox.faults.add("marketplace_offering_users_list", "stale", changes_ago=1)
    old_place.sandbox.customer.edit(old_place.account("ada"), state="OK")
    report = old_place.cycle()
    assert old_place.writes() == []
    assert [user.state for user in report.users] == ["OK"]
    assert not report.failed


def test_a_name_that_no_list_shows_yet_is_not_given_to_a_second_person(place: Place) -> None:
    for name in ("bob", "ada", "cyd"):
        place.person(name)
    place.script.made = {"ada": "lovelace", "bob": PermanentError("unknown to the directory")}
    place.cycle()
    place.script.made = {"ada": "lovelace", "bob": "lovelace"}
    for given in (place.given, GivenUsernames()):  # the agent that gave it, and one after it
        for age in (1, 2, 3):
            place.sandbox.faults.add("*_list", "stale", times=None, changes_ago=age)
            dataclasses.replace(place, given=given).cycle()
            place.sandbox.faults.clear()
            assert place.shown("ada") == ("OK", "lovelace")
            assert place.shown("bob")[1] == ""


def test_a_name_that_no_list_shows_yet_is_not_replaced_by_another(place: Place) -> None:
    place.person("ada")
    place.script.made = {"ada": "lovelace"}
    place.cycle()
    place.script.made = {"ada": "augusta"}
    place.given = GivenUsernames()
    place.sandbox.faults.add("*_offering_users_list", "stale", changes_ago=1)
    report = place.cycle()
    assert place.shown("ada") == ("OK", "lovelace")
    assert [user.username for user in report.users] == ["lovelace"]
    assert place.writes() == []
    assert not report.failed
