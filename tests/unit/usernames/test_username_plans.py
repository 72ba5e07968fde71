"""The calls that a username backend's answer asks for, held against the rules of Waldur."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent.model.marketplace import OfferingUserState as State
from waldur_site_agent.planning.usernames import (
    PENDING,
    ActionRequired,
    Answer,
    Call,
    Named,
    Refused,
    ToBeNamed,
    Unknown,
    Unnamed,
    duplicates_of,
    grant,
    holders_of,
    needs_username,
    plan_calls,
    why_unfit,
)

LINKING, VALIDATION = State.PENDING_ACCOUNT_LINKING, State.PENDING_ADDITIONAL_VALIDATION
IN_THE_MAKING = (State.REQUESTED, State.CREATING, State.ERROR_CREATING, LINKING, VALIDATION)
ALLOWED_FROM = {
    Call.BEGIN_CREATING: {State.REQUESTED, State.ERROR_CREATING},
    Call.SET_OK: {*IN_THE_MAKING, State.ERROR_DELETING},
    Call.SET_PENDING_ACCOUNT_LINKING: {State.CREATING, State.ERROR_CREATING, VALIDATION},
    Call.SET_PENDING_ADDITIONAL_VALIDATION: {State.CREATING, State.ERROR_CREATING, LINKING},
    Call.SET_VALIDATION_COMPLETE: {LINKING, VALIDATION},
    Call.SET_ERROR_CREATING: {State.REQUESTED, State.CREATING, LINKING, VALIDATION},
}
LEADS_TO = {
    Call.BEGIN_CREATING: State.CREATING,
    Call.SET_OK: State.OK,
    Call.SET_PENDING_ACCOUNT_LINKING: LINKING,
    Call.SET_PENDING_ADDITIONAL_VALIDATION: VALIDATION,
    Call.SET_VALIDATION_COMPLETE: State.OK,
    Call.SET_ERROR_CREATING: State.ERROR_CREATING,
}

people = st.integers(1, 6).map(lambda number: UUID(int=number))
texts = st.sampled_from(["", "Link it", "Come by"])
urls = st.sampled_from(["", "https://id.example.com/"])
names = st.sampled_from(["", "ada", "Ada", "bob", "eve"])
states = st.sampled_from([*IN_THE_MAKING, State.OK, State.REQUESTED_DELETION, State.DELETED])
users = st.builds(
    OfferingUser,
    uuid=st.uuids(),
    user_uuid=people,
    username=names,
    state=states,
    service_provider_comment=texts,
    service_provider_comment_url=urls,
)
askable = users.filter(needs_username)
answers: st.SearchStrategy[Answer] = st.one_of(
    st.sampled_from(["ada", "bob"]).map(Named),
    st.builds(ActionRequired, st.sampled_from(sorted(PENDING)), texts, urls),
    st.just(Refused("no contract")),
    st.just(Unknown("away")),
    st.just(Unnamed()),
    st.just(ToBeNamed()),
)


def carried_out(
    user: OfferingUser, answer: Answer, calls: tuple[Call, ...], *, name_completes: bool
) -> OfferingUser:
    """What Waldur makes of the calls; a call that it would refuse fails the test."""
    for call in calls:
        if call is Call.SET_USERNAME:
            assert isinstance(answer, Named)
            completes = name_completes and user.state in IN_THE_MAKING
            state = State.OK if completes else user.state
            user = replace(user, username=answer.username, state=state)
            continue
        if call is Call.SET_OK and user.state == State.OK:
            continue  # the cycle looks at the state before it sends this one
        assert user.state in ALLOWED_FROM[call], call
        user = replace(user, state=LEADS_TO[call])
        if isinstance(answer, ActionRequired) and user.state in PENDING:
            user = replace(
                user,
                service_provider_comment=answer.comment,
                service_provider_comment_url=answer.url,
            )
        if call is Call.SET_VALIDATION_COMPLETE:
            user = replace(user, service_provider_comment="", service_provider_comment_url="")
    return user


@given(askable, answers, st.booleans())
def test_waldur_accepts_every_call_of_a_plan(
    user: OfferingUser, answer: Answer, name_completes: bool
) -> None:
    carried_out(user, answer, plan_calls(user, answer), name_completes=name_completes)


@given(askable, answers, st.booleans())
def test_planning_twice_plans_nothing(
    user: OfferingUser, answer: Answer, name_completes: bool
) -> None:
    calls = plan_calls(user, answer)
    after = carried_out(user, answer, calls, name_completes=name_completes)
    assert plan_calls(after, answer) == ()


@given(askable, st.sampled_from(["ada", "bob"]), st.booleans(), st.data())
def test_a_plan_that_is_cut_off_anywhere_is_finished_by_the_next(
    user: OfferingUser, name: str, name_completes: bool, data: st.DataObject
) -> None:
    answer = Named(name)
    calls = plan_calls(user, answer)
    cut = data.draw(st.integers(0, len(calls)))
    halfway = carried_out(user, answer, calls[:cut], name_completes=name_completes)
    if needs_username(halfway):
        calls = plan_calls(halfway, answer)
        halfway = carried_out(halfway, answer, calls, name_completes=name_completes)
    assert (halfway.state, halfway.username) == (State.OK, name)


@given(askable, st.sampled_from([Unnamed(), ToBeNamed(), Unknown("away")]))
def test_without_an_answer_nothing_is_called(user: OfferingUser, answer: Answer) -> None:
    assert plan_calls(user, answer) == ()


@given(st.lists(users, max_size=12), askable, st.sampled_from(["ada", "Bob", "eve"]))
def test_a_granted_name_is_nobody_elses(
    others: list[OfferingUser], user: OfferingUser, name: str
) -> None:
    answer = grant(user, name, holders_of(others), found=True)
    elsewhere = [
        other
        for other in others
        if other.username.lower() == name.lower()
        and other.user_uuid != user.user_uuid
        and other.state != State.DELETED
    ]
    assert isinstance(answer, Refused if elsewhere else Named)


@given(st.lists(users, max_size=12))
def test_exactly_the_names_of_several_people_are_duplicates(listed: list[OfferingUser]) -> None:
    duplicates = duplicates_of(listed)
    for name, people_of_it in holders_of(listed).items():
        assert (name in duplicates) == (len(people_of_it) > 1)
    for name, sharing in duplicates.items():
        assert {user.user_uuid for user in sharing} == holders_of(listed)[name]


@pytest.mark.parametrize("name", ["ada", "a", "ada.lovelace", "a-b_c.d", "a" * 100])
def test_a_fit_name_is_fit(name: str) -> None:
    assert why_unfit(name, found=False) == ""


@pytest.mark.parametrize("name", ["12345678", "Ada", "_svc", "ada@site.example"])
def test_a_name_of_the_site_may_be_less_orderly_than_one_that_is_made(name: str) -> None:
    assert why_unfit(name, found=True) == ""
    assert why_unfit(name, found=False)


@given(st.text(max_size=120), st.booleans())
def test_what_is_fit_has_no_letter_that_a_command_could_misread(name: str, found: bool) -> None:
    if why_unfit(name, found=found) == "":
        assert name.isascii()
        allowed = set("+$") if found else set()
        assert not set(name) & set(" ,;=[]{}()'\"\\/*?&|<>$`!\n\t%:+~^#") - allowed
        assert not name.startswith(("-", ".", "@"))
