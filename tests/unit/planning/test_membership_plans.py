"""Who joins and who leaves: random worlds, random failures, and the guarantees in all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    BackendResource,
    BackendState,
    CreateHomeDirectories,
    RemoveMembers,
    SetAccess,
    SetMemberLimits,
)
from waldur_site_agent.model.marketplace import OfferingUser, Resource
from waldur_site_agent.planning.membership import (
    AccountWanted,
    MembershipPlan,
    People,
    Policy,
    metadata_before_restricting,
    metadata_of,
    plan_membership,
    reasons_to_leave,
    settings_before,
    wanted_access,
)
from waldur_site_agent.planning.plan import Thresholds, guard

ALL = frozenset({AddMembers, RemoveMembers, SetAccess, SetMemberLimits, CreateHomeDirectories})
POLICY = Policy(supports=ALL, component_types=frozenset({"cpu"}))
KNOWN = ["ada", "bob", "cyd", "dan", "eve"]
STRANGERS = ["oper", "nagios"]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def resource(**changes: Any) -> Resource:
    values: dict[str, Any] = {"uuid": uuid4(), "name": "r", "state": "OK", "backend_id": "a"}
    return Resource(**values | changes)


def wanted(name: str = "a", members: Any = (), **changes: Any) -> AccountWanted:
    granted = None if members is None else dict.fromkeys(members, "is in the project's team")
    values: dict[str, Any] = {"resources": (resource(backend_id=name),), "access": Access.NORMAL}
    return AccountWanted(id=name, members=granted, **values | changes)


def found(name: str = "a", members: Any = (), **changes: Any) -> BackendResource:
    values: dict[str, Any] = {"access": Access.NORMAL, "metadata": {"qos": "normal"}}
    return BackendResource(id=name, members=frozenset(members), **values | changes)


def people(*known: str, **changes: Any) -> People:
    return People(known=dict.fromkeys(known, "is no longer in the project's team"), **changes)


def plan(
    account: AccountWanted, has: BackendResource | None, who: People, policy: Policy = POLICY
) -> MembershipPlan:
    state = BackendState(resources={has.id: has} if has else {})
    return plan_membership([account], state, who, policy)


def actions(membership: MembershipPlan) -> list[Action]:
    return list(membership.plan.actions)


def test_one_joins_and_one_leaves() -> None:
    result = plan(wanted(members=["ada"]), found(members=["bob"]), people("ada", "bob"))
    assert actions(result) == [RemoveMembers("a", ("bob",)), AddMembers("a", ("ada",))]


def test_users_whom_waldur_does_not_know_are_left_alone_and_named() -> None:
    result = plan(wanted(members=["ada"]), found(members=["ada", "oper"]), people("ada"))
    assert actions(result) == []
    assert result.accounts[0].unknown == ("oper",)


def test_unknown_users_are_removed_where_the_site_asks_for_it() -> None:
    policy = replace(POLICY, remove_unknown=True)
    result = plan(wanted(), found(members=["oper"]), people(), policy)
    assert actions(result) == [RemoveMembers("a", ("oper",))]


def test_nobody_counts_as_unknown_while_a_list_of_names_is_missing() -> None:
    policy = replace(POLICY, remove_unknown=True)
    result = plan(wanted(), found(members=["oper"]), people(is_complete=False), policy)
    assert actions(result) == []


def test_a_member_stays_when_the_team_could_not_be_read() -> None:
    account = wanted(members=None, trouble="away")
    result = plan(account, found(members=["ada", "bob"]), people("ada", "bob"))
    assert actions(result) == []


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_nobody_leaves_while_a_list_that_could_grant_access_was_not_read() -> None:
    who = people("ada", "bob", nobody_leaves="service accounts were not read")
    result = plan(wanted(members=["ada"]), found(members=["bob"]), who)
    assert actions(result) == [AddMembers("a", ("ada",))]


def test_an_account_that_is_missing_is_reported_and_nothing_planned() -> None:
    result = plan(wanted(members=["ada"]), None, people("ada"))
    assert (actions(result), result.accounts[0].is_missing) == ([], True)


def test_a_user_whom_the_backend_cannot_serve_yet_waits() -> None:
    who = people("ada", "bob", waiting=frozenset({"bob"}))
    result = plan(wanted(members=["ada", "bob"]), found(), who)
    assert actions(result) == [AddMembers("a", ("ada",))]
    assert result.accounts[0].waiting == ("bob",)


def test_homes_are_made_once_for_all() -> None:
    result = plan(wanted(members=["ada"]), found(members=["ada"]), people(homeless=frozenset("b")))
    assert actions(result) == [CreateHomeDirectories(("b",))]


@pytest.mark.parametrize(
    ("access", "now", "planned"),
    [
        (Access.PAUSED, Access.NORMAL, Access.PAUSED),
        (Access.PAUSED, None, Access.PAUSED),
        (Access.DOWNSCALED, Access.PAUSED, Access.DOWNSCALED),
        (Access.NORMAL, Access.PAUSED, Access.NORMAL),
        (Access.NORMAL, None, None),  # a list of the site's own
        (Access.NORMAL, Access.NORMAL, None),
        (Access.PAUSED, Access.PAUSED, None),
        (None, Access.PAUSED, None),  # an order is in progress
    ],
)
def test_access_is_switched_only_to_restrict_and_to_restore(
    access: Access | None, now: Access | None, planned: Access | None
) -> None:
    ours = resource(backend_metadata={"qos_before": "normal"})
    result = plan(wanted(access=access, resources=(ours,)), found(access=now), people())
    assert [a.access for a in actions(result) if isinstance(a, SetAccess)] == (
        [planned] if planned else []
    )


@pytest.mark.parametrize(
    ("paused", "downscaled", "expected"),
    [
        (True, True, Access.PAUSED),
        (True, False, Access.PAUSED),
        (False, True, Access.DOWNSCALED),
        (False, False, Access.NORMAL),
    ],
)
def test_paused_counts_over_downscaled_over_normal(
    paused: bool, downscaled: bool, expected: Access
) -> None:
    assert wanted_access(resource(paused=paused, downscaled=downscaled)) is expected


def test_the_sites_own_qos_list_survives_a_pause() -> None:
    own = found(access=None, metadata={"qos": "normal,long", "default_qos": "long"})
    stopped = found(access=Access.PAUSED, metadata={"qos": "stop"})
    remembered = metadata_before_restricting({"note": "kept", "qos": "normal,long"}, own)
    during = metadata_of(remembered, stopped, Access.PAUSED)
    assert during == {
        "note": "kept",
        "qos": "stop",
        "qos_before": "normal,long",
        "default_qos_before": "long",
    }
    account = wanted(resources=(resource(backend_metadata=during),))
    lifted = plan(account, stopped, people())
    restore = {"qos": "normal,long", "default_qos": "long"}
    assert actions(lifted) == [SetAccess("a", Access.NORMAL, restore)]
    after = metadata_of(during, own, Access.NORMAL)
    assert after == {"note": "kept", "qos": "normal,long", "default_qos": "long"}


def test_what_was_so_before_is_not_forgotten_while_a_restriction_is_wanted_but_failed() -> None:
    own = found(access=None, metadata={"qos": "normal,long"})
    remembered = metadata_before_restricting({}, own)
    assert metadata_of(remembered, own, Access.PAUSED) == remembered
    assert metadata_of(remembered, own, None) == remembered
    assert metadata_before_restricting(remembered, own) == remembered


def test_an_older_restriction_is_not_mixed_with_a_new_one() -> None:
    old = {"qos_before": "a", "member_qos_before": "x"}
    assert settings_before(metadata_before_restricting(old, found())) == {"qos": "normal"}


@pytest.mark.guarantee("membership: Access")
def test_a_restriction_that_the_site_made_is_not_lifted() -> None:
    stopped = found(access=Access.PAUSED, metadata={"qos": "stop"})
    assert actions(plan(wanted(access=Access.NORMAL), stopped, people())) == []


def test_a_restriction_found_where_it_is_wanted_counts_as_ours() -> None:
    stopped = found(access=Access.PAUSED, metadata={"qos": "stop"})
    metadata = metadata_of({"qos": "stop"}, stopped, Access.PAUSED)
    account = wanted(resources=(resource(backend_metadata=metadata),), access=Access.NORMAL)
    assert actions(plan(account, stopped, people())) == [SetAccess("a", Access.NORMAL, {})]


@pytest.mark.guarantee("membership: Limits")
def test_limits_of_members_are_set_changed_and_withdrawn() -> None:
    account = wanted(
        resources=(resource(backend_metadata={"limited_members": ["bob", "cyd"]}),),
        members=["ada", "bob", "cyd", "dan"],
        member_limits={"ada": {"cpu": Decimal(60)}, "bob": {"cpu": Decimal(5)}},
    )
    has = found(
        members=["ada", "bob", "cyd", "dan"],
        member_limits={
            "ada": {"cpu": Decimal(60)},
            "bob": {"cpu": Decimal(9)},
            "cyd": {"cpu": Decimal(1), "node": Decimal(1)},
            "dan": {"cpu": Decimal(7)},  # set by the site
        },
    )
    assert actions(plan(account, has, people("ada", "bob", "cyd", "dan"))) == [
        SetMemberLimits("a", "bob", {"cpu": Decimal(5)}),
        SetMemberLimits("a", "cyd", {"cpu": None}),
    ]


def test_limits_that_are_not_known_stay() -> None:
    account = wanted(members=["ada"], member_limits=None)
    has = found(members=["ada"], member_limits={"ada": {"cpu": Decimal(60)}})
    assert actions(plan(account, has, people("ada"))) == []


def test_kinds_of_action_that_a_backend_lacks_are_never_planned() -> None:
    policy = Policy(supports=frozenset({AddMembers, RemoveMembers}))
    account = wanted(
        access=Access.PAUSED, members=["ada"], member_limits={"ada": {"cpu": Decimal(1)}}
    )
    who = people("ada", homeless=frozenset({"ada"}))
    assert actions(plan(account, found(members=["ada"]), who, policy)) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "is no longer in the project's team"),
        ({"state": "Requested deletion"}, "is being deleted in Waldur"),
        ({"state": "Deleting"}, "is being deleted in Waldur"),
        ({"is_restricted": True}, "is restricted in Waldur"),
        ({"state": "Error creating"}, 'has an account in state "Error creating"'),
    ],
)
def test_every_leaver_gets_a_reason(changes: dict[str, Any], reason: str) -> None:
    user = OfferingUser(uuid=uuid4(), user_uuid=uuid4(), username="Ada", **changes)
    assert reasons_to_leave([user]) == {"Ada": reason}


# Random worlds

names = st.sampled_from(KNOWN)
accounts = st.sampled_from(["a", "b", "c"])


@dataclass(frozen=True)
class World:
    wanted: tuple[AccountWanted, ...]
    state: BackendState


@st.composite
def worlds(draw: st.DrawFn) -> World:
    ids = draw(st.lists(accounts, unique=True, max_size=3))
    teams = [
        wanted(
            name,
            draw(st.one_of(st.none(), st.frozensets(names))),
            access=draw(st.sampled_from([None, *Access])),
            resources=(resource(backend_id=name, backend_metadata={"qos_before": "normal"}),),
        )
        for name in ids
    ]
    existing = draw(st.lists(accounts, unique=True, max_size=3))
    state = BackendState(
        resources={
            name: found(
                name,
                draw(st.frozensets(st.sampled_from(KNOWN + STRANGERS))),
                access=draw(st.sampled_from([None, *Access])),
            )
            for name in existing
        }
    )
    return World(tuple(teams), state)


def carried_out(state: BackendState, done: list[Action]) -> BackendState:
    """A backend that does exactly what it is told."""
    now = dict(state.resources)
    for action in done:
        match action:
            case AddMembers(resource=name, members=members):
                now[name] = replace(now[name], members=now[name].members | set(members))
            case RemoveMembers(resource=name, members=members):
                now[name] = replace(now[name], members=now[name].members - set(members))
            case SetAccess(resource=name, access=access):
                now[name] = replace(now[name], access=access)
    return BackendState(resources=now)


@given(world=worlds(), failing=st.sets(st.integers(0, 12)))
def test_after_a_quiet_cycle_access_is_what_waldur_grants(world: World, failing: set[int]) -> None:
    who = people(*KNOWN)
    first = plan_membership(world.wanted, world.state, who, POLICY)
    partly = [a for n, a in enumerate(first.plan.actions) if n not in failing]
    half = carried_out(world.state, partly)
    second = plan_membership(world.wanted, half, who, POLICY)
    done = carried_out(half, list(second.plan.actions))
    for account in world.wanted:
        if account.id in done.resources and account.members is not None:
            ours = done.resources[account.id].members & set(KNOWN)
            assert ours == account.members.keys()
    assert plan_membership(world.wanted, done, who, POLICY).plan.steps == ()


@pytest.mark.guarantee("What the agent did not make, and Waldur does not name, stays")
@given(worlds())
def test_strangers_and_foreign_accounts_are_left_as_they_were(world: World) -> None:
    result = plan_membership(world.wanted, world.state, people(*KNOWN), POLICY)
    done = carried_out(world.state, list(result.plan.actions))
    ours = {account.id for account in world.wanted}
    for name, before in world.state.resources.items():
        if name not in ours:
            assert done.resources[name] == before
        assert before.members & set(STRANGERS) == done.resources[name].members & set(STRANGERS)


@given(worlds())
def test_an_unreadable_team_moves_nobody(world: World) -> None:
    result = plan_membership(world.wanted, world.state, people(*KNOWN), POLICY)
    unreadable = {account.id for account in world.wanted if account.members is None}
    for action in result.plan.actions:
        if isinstance(action, AddMembers | RemoveMembers):
            assert action.resource not in unreadable


@pytest.mark.guarantee("Removals are bounded")
@given(worlds(), st.integers(0, 3), st.integers(0, 100))
def test_no_plan_removes_more_than_the_site_allows(world: World, most: int, percent: int) -> None:
    result = plan_membership(world.wanted, world.state, people(*KNOWN), POLICY)
    members = sum(len(r.members) for r in world.state.resources.values())
    thresholds = Thresholds(max_removals_percent=Decimal(percent), max_removals=most)
    guarded = guard(result.plan, members, 0, thresholds)
    removed = sum(len(a.members) for a in guarded.allowed.actions if isinstance(a, RemoveMembers))
    assert removed <= most or removed * 100 <= percent * members
    additions = [a for a in result.plan.actions if isinstance(a, AddMembers)]
    assert [a for a in guarded.allowed.actions if isinstance(a, AddMembers)] == additions
