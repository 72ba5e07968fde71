"""What orders ask of the backend, given what Waldur and the backend have."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import (
    AddMembers,
    BackendResource,
    BackendState,
    CreateResource,
    DeleteResource,
    PermanentError,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent.model.backend import Container, Placement
from waldur_site_agent.model.marketplace import Component, Order, Resource
from waldur_site_agent.planning.orders import (
    Claims,
    OrderContext,
    OrderPlan,
    backend_plan,
    claims_of,
    plan_orders,
)

CPU = Component(
    type="cpu", measured_unit="h", label="CPU", accounting_type="limit", unit_factor=Decimal(60)
)
GPU = Component(
    type="gres/gpu",
    measured_unit="h",
    label="GPU",
    accounting_type="usage",
    unit_factor=Decimal(60),
    limit=Decimal(5),
)
COMPONENTS = {"cpu": CPU, "gres/gpu": GPU}


def placement(name: str, project: str = "p") -> Placement:
    container = Container(
        kind="project", id=f"p_{project}", parent="c_c", title=project, organization=f"p_{project}"
    )
    return Placement(
        id=name,
        title=name,
        parent=container.id,
        organization=container.id,
        containers=(container,),
    )


def context(kind: str = "Create", **changes: Any) -> OrderContext:
    resource = Resource(uuid=uuid4(), name="r", backend_id=changes.pop("backend_id", ""))
    limits = changes.pop("limits", {"cpu": Decimal(10)})
    order = Order(
        uuid=uuid4(),
        type=kind,
        state="executing",
        project_slug="p",
        marketplace_resource_uuid=resource.uuid,
        limits=limits,
    )
    changes.setdefault("placements", (placement("a_r"),))
    return OrderContext(order=order, resource=resource, **changes)


def state(*resources: BackendResource) -> BackendState:
    return BackendState(resources={resource.id: resource for resource in resources})


def account(name: str, **changes: Any) -> BackendResource:
    values: dict[str, Any] = {"parent": "p_p", "organization": "p_p"} | changes
    return BackendResource(id=name, **values)


def plan_one(
    in_hand: OrderContext, found: BackendState | None = None, claims: Claims | None = None
) -> OrderPlan:
    return plan_orders([in_hand], found or state(), claims or Claims({}), COMPONENTS)[0]


def test_a_new_order_makes_the_account_with_its_limits_and_then_adds_the_team() -> None:
    plan = plan_one(context(members=frozenset({"bob", "ada"})))
    create, add = [step.action for step in plan.steps]
    assert create == CreateResource(
        placement("a_r"), {"cpu": Decimal(600), "gres/gpu": Decimal(300)}
    )
    assert add == AddMembers("a_r", ("ada", "bob"))
    assert plan.needs_backend_id


@pytest.mark.guarantee("orders: The agent dies")
def test_an_account_of_an_interrupted_run_is_adopted_and_finished() -> None:
    half = account("a_r", limits={"cpu": Decimal(600)})
    plan = plan_one(context(members=frozenset({"ada", "bob"})), state(half))
    assert [step.action for step in plan.steps] == [
        SetLimits("a_r", {"gres/gpu": Decimal(300)}),
        AddMembers("a_r", ("ada", "bob")),
    ]
    assert plan.backend_id == "a_r"
    assert plan.needs_backend_id


def test_an_account_that_waldur_knows_by_name_is_finished_with_those_it_has() -> None:
    half = account("a_r", limits={"cpu": Decimal(600)}, members=frozenset({"ada"}))
    plan = plan_one(context(members=frozenset({"ada", "bob"}), backend_id="A_R"), state(half))
    assert [step.action for step in plan.steps] == [
        SetLimits("a_r", {"gres/gpu": Decimal(300)}),
        AddMembers("a_r", ("bob",)),
    ]


@pytest.mark.guarantee("orders: The agent dies")
def test_an_account_with_members_was_not_left_by_an_interrupted_run() -> None:
    plan = plan_one(context(), state(account("a_r", members=frozenset({"eve"}))))
    assert plan.steps == ()
    assert "belongs to no resource in Waldur, and has 1 members" in str(plan.problem)


@pytest.mark.guarantee("orders: Names")
@pytest.mark.parametrize("changes", [{"parent": "root"}, {"organization": "c_c"}])
def test_a_name_set_in_waldur_does_not_open_a_foreign_account(changes: dict[str, str]) -> None:
    plan = plan_one(context(backend_id="c_c"), state(account("c_c", **changes)))
    assert plan.steps == ()
    assert isinstance(plan.problem, PermanentError)


@pytest.mark.guarantee("orders: Names")
def test_a_name_that_two_resources_carry_is_not_worked_on() -> None:
    claims = claims_of([Resource(uuid=uuid4(), backend_id="a_r")])
    for kind in ("Create", "Update", "Terminate"):
        plan = plan_one(context(kind, backend_id="a_r"), state(account("a_r")), claims)
        assert plan.steps == ()
        assert isinstance(plan.problem, PermanentError)


@pytest.mark.guarantee("orders: Names")
def test_a_foreign_account_of_the_same_name_is_never_adopted() -> None:
    for stranger in (account("a_r", parent="physics"), account("a_r", organization="physics")):
        plan = plan_one(context(), state(stranger))
        assert isinstance(plan.problem, PermanentError)
        assert plan.steps == ()
        assert '"a_r" exists' in str(plan.problem)
        assert "physics" in str(plan.problem)


@pytest.mark.guarantee("orders: Names")
def test_an_account_that_another_resource_claims_is_never_adopted() -> None:
    claims = claims_of([Resource(uuid=uuid4(), backend_id="A_R")])
    plan = plan_one(context(), state(account("a_r")), claims)
    assert isinstance(plan.problem, PermanentError)
    assert "belongs to another resource" in str(plan.problem)


def test_the_next_name_is_taken_when_the_first_belongs_to_somebody_else() -> None:
    names = (placement("p"), placement("p-0"), placement("p-1"))
    claims = claims_of([Resource(uuid=uuid4(), backend_id="p")])
    found = state(account("p"), account("p-0", parent="elsewhere"))
    assert plan_one(context(placements=names), found, claims).backend_id == "p-1"


@pytest.mark.guarantee("orders: Names")
def test_when_every_name_is_taken_the_order_fails_and_says_how_many_were_tried() -> None:
    names = (placement("p"), placement("p-0"))
    found = state(account("p", parent="x"), account("p-0", parent="x"))
    problem = plan_one(context(placements=names), found).problem
    assert isinstance(problem, PermanentError)
    assert "1 other names" in str(problem)


def test_two_orders_of_one_cycle_never_get_the_same_name() -> None:
    names = (placement("p"), placement("p-0"))
    plans = plan_orders(
        [context(placements=names), context(placements=names)], state(), Claims({}), COMPONENTS
    )
    assert [plan.backend_id for plan in plans] == ["p", "p-0"]


def test_an_allocation_never_takes_the_name_of_a_container_that_is_about_to_be_made() -> None:
    first, second = context(), context(placements=(placement("p_p", project="q"),))
    plans = plan_orders([first, second], state(), Claims({}), COMPONENTS)
    assert isinstance(plans[1].problem, PermanentError)


def test_a_named_resource_whose_account_vanished_is_made_again_under_its_name() -> None:
    plan = plan_one(context(backend_id="a_old"))
    create = plan.steps[0].action
    assert isinstance(create, CreateResource)
    assert create.resource == "a_old"
    assert not plan.needs_backend_id


def test_an_order_that_is_carried_out_already_plans_nothing() -> None:
    done = account(
        "a_r", limits={"cpu": Decimal(600), "gres/gpu": Decimal(300)}, members=frozenset({"ada"})
    )
    plan = plan_one(context(members=frozenset({"ada"}), backend_id="a_r"), state(done))
    assert (plan.steps, plan.problem) == ((), None)


def test_a_team_that_could_not_be_read_leaves_the_order_unfinished_but_makes_the_account() -> None:
    trouble = TemporaryError("away")
    plan = plan_one(context(team_problem=trouble))
    assert [type(step.action) for step in plan.steps] == [CreateResource]
    assert plan.unfinished is trouble


def test_an_update_changes_only_the_limits_that_differ() -> None:
    found = account("a_r", limits={"cpu": Decimal(60), "gres/gpu": Decimal(300)})
    update = context("Update", backend_id="a_r", limits={"cpu": Decimal(2), "gres/gpu": Decimal(9)})
    assert [step.action for step in plan_one(update, state(found)).steps] == [
        SetLimits("a_r", {"cpu": Decimal(120)})
    ]


def test_an_update_without_limits_is_simply_done() -> None:
    plan = plan_one(context("Update", backend_id="a_r", limits={}), state(account("a_r")))
    assert (plan.steps, plan.problem) == ((), None)


@pytest.mark.guarantee("orders: Several at once")
def test_an_update_of_a_vanished_account_fails_with_the_remedy() -> None:
    problem = plan_one(context("Update", backend_id="a_r")).problem
    assert isinstance(problem, PermanentError)
    assert "restore it" in str(problem)


def test_a_termination_deletes_the_account_and_names_the_project_account() -> None:
    plan = plan_one(context("Terminate", backend_id="a_r"), state(account("a_r")))
    assert [step.action for step in plan.steps] == [DeleteResource("a_r", "p_p")]


def test_a_termination_leaves_a_parent_alone_that_is_not_the_projects() -> None:
    moved = account("a_r", parent="p_old", organization="p_old")
    plan = plan_one(context("Terminate", backend_id="a_r"), state(moved))
    assert [step.action for step in plan.steps] == [DeleteResource("a_r", None)]


@pytest.mark.guarantee("orders: Names")
def test_a_termination_never_deletes_what_was_not_made_for_a_resource() -> None:
    site = account("physics", parent="root", organization="physics dept")
    plan = plan_one(context("Terminate", backend_id="physics"), state(site))
    assert plan.steps == ()
    assert "delete it by hand" in str(plan.problem)


@pytest.mark.guarantee("orders: The agent dies")
def test_a_termination_finds_what_an_interrupted_creation_left_without_a_name() -> None:
    plan = plan_one(context("Terminate"), state(account("a_r")))
    assert [step.action for step in plan.steps] == [DeleteResource("a_r", "p_p")]


def test_a_termination_of_what_is_gone_or_never_was_is_success() -> None:
    for backend_id in ("a_r", ""):
        plan = plan_one(context("Terminate", backend_id=backend_id))
        assert (plan.steps, plan.problem) == ((), None)


def test_a_termination_never_deletes_an_account_that_another_resource_uses() -> None:
    claims = claims_of([Resource(uuid=uuid4(), backend_id="a_r")])
    plan = plan_one(context("Terminate", backend_id="a_r"), state(account("a_r")), claims)
    assert plan.steps == ()
    assert isinstance(plan.problem, PermanentError)


def test_one_bad_order_does_not_stop_the_others() -> None:
    bad = context(problem=PermanentError("no slug"))
    negative = context(limits={"cpu": Decimal(-1)}, placements=(placement("a_n"),))
    good = context()
    plans = plan_orders([bad, negative, good], state(), Claims({}), COMPONENTS)
    assert [plan.problem is None for plan in plans] == [False, False, True]


USERS = st.frozensets(st.sampled_from(["ada", "bob", "cyd", "dan"]))
LIMITS = st.dictionaries(st.sampled_from(["cpu", "mem"]), st.decimals(0, 1000, places=2))


@given(members=USERS, present=USERS, ordered=LIMITS, found=LIMITS, exists=st.booleans())
def test_planning_twice_plans_nothing(
    members: frozenset[str],
    present: frozenset[str],
    ordered: dict[str, Decimal],
    found: dict[str, Decimal],
    exists: bool,
) -> None:
    before = state(account("a_r", members=present, limits=found)) if exists else state()
    order = context(members=members, limits=ordered, backend_id="a_r")
    first = plan_one(order, before)
    after = carried_out(before, first)
    assert plan_one(order, after).steps == ()
    assert members <= after.resources["a_r"].members


def carried_out(before: BackendState, plan: OrderPlan) -> BackendState:
    """A backend that does what it is told."""
    now = dict(before.resources)
    for action in backend_plan([plan]).actions:
        old = now.get("a_r", account("a_r"))
        limits, members = dict(old.limits), old.members
        match action:
            case CreateResource(limits=new) | SetLimits(limits=new):
                limits |= {name: amount for name, amount in new.items() if amount is not None}
            case AddMembers(members=names):
                members |= set(names)
        now["a_r"] = account("a_r", limits=limits, members=members)
    return BackendState(resources=now)


@given(st.lists(st.sampled_from(["x", "y", "X"]), max_size=6))
def test_a_name_is_claimed_by_everybody_who_carries_it(names: list[str]) -> None:
    resources = [Resource(uuid=UUID(int=n), backend_id=name) for n, name in enumerate(names)]
    claims = claims_of(resources)
    for resource in resources:
        same = {r.uuid for r in resources if r.backend_id.lower() == resource.backend_id.lower()}
        assert claims.others(resource.backend_id, resource.uuid) == same - {resource.uuid}
