"""Scopes that wait: merged, tried again, never lost."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.events.messages import OrderAnnounced, RoleAnnounced
from waldur_site_agent.events.pending import (
    HOLD_SECONDS,
    LONGEST_DELAY,
    LONGEST_REST,
    READ_AGAIN_AFTER,
    Batch,
    Kind,
    PendingScopes,
)
from waldur_site_agent.model.backend import Everything, OrderScope, ProjectScope, UserScope
from waldur_site_agent.model.events import WaldurSnapshot

PROJECT = ProjectScope(uuid4())
ORDER = OrderScope(uuid4())
NOTHING = WaldurSnapshot()


def taken(waiting: PendingScopes, now: float) -> Batch:
    batch = waiting.take(now)
    assert batch is not None
    return batch


@pytest.mark.guarantee("events: From a message to a cycle")
def test_a_thousand_changes_in_one_project_are_one_pass_and_one_message_in_hand() -> None:
    waiting = PendingScopes()
    acknowledged = [t for n in range(1000) for t in waiting.add(PROJECT, 0.0, ticket=n)]
    assert acknowledged == list(range(999))
    batch = taken(waiting, 0.0)
    assert batch.scopes == {PROJECT}
    assert waiting.take(0.0) is None
    (entry,) = batch.entries
    assert waiting.passed(entry, NOTHING, 1.0) == [999]


def test_news_that_come_while_a_pass_runs_are_another_pass() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 0.0, ticket="first")
    (entry,) = taken(waiting, 0.0).entries
    assert waiting.add(PROJECT, 0.5, ticket="second") == []
    assert waiting.passed(entry, NOTHING, 1.0) == ["first"]
    assert taken(waiting, 1.0).entries[0].tickets == ["second"]


@pytest.mark.guarantee("events: The guarantee")
def test_a_failure_waits_longer_each_time_and_blocks_nobody_else() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 0.0, ticket="held")
    now, delays = 0.0, []
    for _ in range(12):
        (entry,) = taken(waiting, now).entries
        waiting.failed(entry, now)
        other = UserScope(uuid4())
        waiting.add(other, now)
        assert taken(waiting, now).scopes == {other}
        delays.append(entry.due - now)
        now = entry.due
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == LONGEST_DELAY


def test_news_do_not_cut_the_delay_of_what_fails_short() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 0.0)
    (entry,) = taken(waiting, 0.0).entries
    waiting.failed(entry, 0.0)
    waiting.add(PROJECT, 0.1, ticket="news")
    assert waiting.take(0.5) is None
    assert taken(waiting, 1.0).entries[0].tickets == ["news"]


def test_a_full_pass_that_is_asked_for_again_does_not_wait() -> None:
    waiting = PendingScopes()
    waiting.add(Everything(), 0.0)
    (entry,) = taken(waiting, 0.0).entries
    waiting.failed(entry, 0.0)
    waiting.add(Everything(), 0.1)
    (entry,) = taken(waiting, 0.1).entries
    waiting.add(Everything(), 0.2)  # while the pass is made
    waiting.failed(entry, 0.3)
    assert taken(waiting, 0.3).kind is Kind.EVERYTHING


@pytest.mark.guarantee("events: From a message to a cycle")
def test_what_spoils_a_pass_is_soon_alone_and_everybody_else_passes() -> None:
    waiting, now, passes = PendingScopes(), 0.0, 0
    scopes = [ProjectScope(uuid4()) for _ in range(64)]
    for scope in scopes:
        waiting.add(scope, now)
    while len(waiting) != 1 or passes == 0:
        batch = waiting.take(now)
        if batch is None:
            now += 0.5
        elif scopes[40] in batch.scopes:
            waiting.spoiled(batch.entries, now)
            passes += 1
        else:
            for entry in batch.entries:
                waiting.passed(entry, NOTHING, now)
            passes += 1
    assert waiting.scopes() == {scopes[40]}
    assert passes <= 1 + 2 * 6
    assert now <= 10.0


def test_many_that_spoil_their_passes_hold_news_up_by_one_pass_at_most() -> None:
    waiting = PendingScopes()
    for scope in [ProjectScope(uuid4()) for _ in range(8)]:
        waiting.add(scope, 0.0)
        waiting.spoiled(taken(waiting, 0.0).entries, 0.0)
    assert len(taken(waiting, 100.0).scopes) == 1
    waiting.add(ORDER, 100.0)
    assert taken(waiting, 100.0).scopes == {ORDER}
    assert taken(waiting, 100.0).kind is Kind.MEMBERS


@pytest.mark.guarantee("events: The guarantee")
def test_while_one_side_is_away_everything_that_comes_waits_for_one_pass_a_minute() -> None:
    waiting, now, passes = PendingScopes(), 0.0, 0
    for _ in range(1200):
        now += 1.0
        waiting.add(ProjectScope(uuid4()), now)
        batch = waiting.take(now)
        if batch is not None:
            waiting.cut_short(batch.kind, batch.entries, now)
            passes += 1
    assert 20 <= passes <= 30
    batch = taken(waiting, now + LONGEST_REST)
    assert len(batch.entries) == 1200
    for entry in batch.entries:
        waiting.passed(entry, NOTHING, now)
    waiting.add(PROJECT, now)
    assert taken(waiting, now).scopes == {PROJECT}


def test_orders_do_not_rest_with_members() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 0.0)
    waiting.cut_short(Kind.MEMBERS, taken(waiting, 0.0).entries, 0.0)
    waiting.add(ORDER, 0.0)
    assert taken(waiting, 0.0).scopes == {ORDER}
    assert waiting.next_due() == 1.0


def test_a_full_pass_on_the_way_does_not_use_up_a_reading_that_was_not_due() -> None:
    waiting = PendingScopes()
    announced = OrderAnnounced(ORDER.uuid, "pending-provider")
    waiting.add(ORDER, 0.0, announcement=announced, ticket="held")
    for now in (0.0, 1.0, 6.0):
        (entry,) = taken(waiting, now).entries
        waiting.passed(entry, NOTHING, now)
    waiting.add(Everything(), 7.0)
    for entry in taken(waiting, 7.0).entries:
        assert waiting.passed(entry, NOTHING, 7.0) == []
    (entry,) = taken(waiting, 36.0).entries
    assert waiting.passed(entry, NOTHING, 36.0) == ["held"]


def test_a_full_pass_takes_everything_along() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 0.0)
    waiting.add(ORDER, 0.0, due=100.0)
    waiting.add(Everything(), 0.0)
    batch = taken(waiting, 0.0)
    assert batch.kind is Kind.EVERYTHING
    assert batch.scopes == {PROJECT, ORDER, Everything()}
    assert len(waiting) == 0


def test_orders_and_members_are_passes_of_their_own() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 1.0)
    orders = {OrderScope(uuid4()) for _ in range(5)}
    for order in orders:
        waiting.add(order, 2.0)
    assert taken(waiting, 2.0).scopes == {PROJECT}
    assert taken(waiting, 2.0).scopes == orders


def test_waldur_is_read_three_times_more_when_it_does_not_show_what_was_announced() -> None:
    waiting, now = PendingScopes(), 0.0
    announced = OrderAnnounced(ORDER.uuid, "pending-provider")
    waiting.add(ORDER, now, announcement=announced, ticket="held")
    for pause in READ_AGAIN_AFTER:
        (entry,) = taken(waiting, now).entries
        assert waiting.passed(entry, NOTHING, now) == []
        assert waiting.take(now + pause - 0.1) is None
        now += pause
    (entry,) = taken(waiting, now).entries
    assert waiting.passed(entry, NOTHING, now) == ["held"]
    assert len(waiting) == 0


def test_a_later_announcement_of_the_same_replaces_the_earlier() -> None:
    waiting, person = PendingScopes(), uuid4()
    for granted in (True, False):
        role = RoleAnnounced(PROJECT.uuid, person, "PROJECT.ADMIN", granted)
        waiting.add(PROJECT, 0.0, announcement=role)
    (entry,) = taken(waiting, 0.0).entries
    waiting.passed(entry, WaldurSnapshot(teams={PROJECT.uuid: ()}), 0.0)
    assert len(waiting) == 0


def test_a_message_is_not_held_for_ever_while_its_scope_fails() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 0.0, ticket="held")
    (entry,) = taken(waiting, 0.0).entries
    assert waiting.failed(entry, 1.0) == []
    (entry,) = taken(waiting, HOLD_SECONDS).entries
    assert waiting.failed(entry, HOLD_SECONDS) == ["held"]
    assert waiting.scopes() == {PROJECT}


def test_what_is_planned_for_later_does_not_count_as_waiting() -> None:
    waiting = PendingScopes()
    waiting.add(PROJECT, 0.0, due=300.0)
    assert waiting.waited(10.0) == []
    waiting.add(PROJECT, 20.0)
    assert waiting.waited(25.0) == [5.0]


steps = st.lists(
    st.tuples(st.sampled_from(["add", "pass", "fail", "spoil", "cut", "full"]), st.integers(0, 3)),
    max_size=40,
)
_SCOPES = [ProjectScope(UUID(int=n)) for n in range(2)] + [
    OrderScope(UUID(int=n)) for n in range(2)
]


@given(steps)
@pytest.mark.filterwarnings("error")
def test_no_message_is_acknowledged_twice_or_before_a_pass_that_came_after_it(
    story: list[tuple[str, int]],
) -> None:
    waiting, now, number = PendingScopes(), 0.0, 0
    scope_of: dict[object, object] = {}
    acknowledged: list[object] = []
    youngest: dict[object, int] = {}
    for what, which in story:
        now += 1.0
        if what == "add":
            number += 1
            scope_of[number] = youngest_scope = _SCOPES[which]
            youngest[youngest_scope] = number
            done = waiting.add(_SCOPES[which], now, ticket=number)
            assert all(scope_of[t] == _SCOPES[which] and t != number for t in done)
            acknowledged += done
            continue
        if what == "full":
            waiting.add(Everything(), now)
        batch = waiting.take(now)
        if batch is not None and what in ("spoil", "cut"):
            acknowledged += (
                waiting.spoiled(batch.entries, now)
                if what == "spoil"
                else waiting.cut_short(batch.kind, batch.entries, now)
            )
            assert batch.scopes <= waiting.scopes()
            continue
        for entry in batch.entries if batch else ():
            if what == "fail":
                acknowledged += waiting.failed(entry, now)
                assert entry.scope in waiting.scopes()
            else:
                acknowledged += waiting.passed(entry, NOTHING, now)
                assert youngest.get(entry.scope) in (None, *acknowledged)
    assert len(acknowledged) == len(set(acknowledged))
    for scope in waiting.scopes() - {Everything()}:
        assert youngest[scope] not in acknowledged
