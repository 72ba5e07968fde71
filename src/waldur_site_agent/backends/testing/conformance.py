"""The contract, as tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    Backend,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    MoveContainer,
    PermanentError,
    RemoveMembers,
    Result,
    SetAccess,
    SetBudget,
    SetLimits,
    SetMemberLimits,
    TemporaryError,
)
from waldur_site_agent.backends.testing.hooks import (
    AWKWARD_NAMES,
    BatchConformance,
    Hooks,
    Spent,
    check_outcome,
    expect,
    expect_refusal,
    found,
    request_of,
)
from waldur_site_agent.model.backend import Placement
from waldur_site_agent.model.usage import Period

# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means


class MemberConformance(Hooks):
    """Adding and removing members."""

    def test_added_members_are_in_and_nobody_else(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        assert set(self.people[:2]) == found(backend, resource).members

    def test_adding_members_again_changes_nothing(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        before = self.everything(backend)
        expect(backend, AddMembers(resource, self.people[:1]), Result.UNCHANGED)
        assert before == self.everything(backend)

    def test_a_person_may_be_a_member_of_two_resources(self, backend: Backend, stem: str) -> None:
        resources = [self.created(backend, stem, slug) for slug in ("one", "two")]
        outcomes = backend.apply([AddMembers(name, self.people[:1]) for name in resources])
        assert [outcome.result for outcome in outcomes] == [Result.DONE, Result.DONE]
        state = backend.observe()
        assert all(set(self.people[:1]) == state.resources[name].members for name in resources)

    def test_a_person_who_is_not_known_yet_waits_while_others_are_served(
        self, backend: Backend, stem: str
    ) -> None:
        if self.unknown_person is None:
            pytest.skip("no hook unknown_person")
        resource = self.created(backend, stem)
        members = (self.unknown_person, self.people[0])
        outcome = expect(backend, AddMembers(resource, members), Result.DONE)
        (skipped,) = outcome.skipped
        assert self.unknown_person == skipped.name
        assert isinstance(skipped.error, TemporaryError)
        assert {self.people[0]} == found(backend, resource).members

    def test_members_of_a_resource_that_does_not_exist_are_refused(
        self, backend: Backend, stem: str
    ) -> None:
        expect_refusal(backend, AddMembers(f"{stem}-none", self.people[:1]))

    def test_removed_members_are_out_and_the_others_stay(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:3]), Result.DONE)
        expect(backend, RemoveMembers(resource, self.people[:2]), Result.DONE)
        assert {self.people[2]} == found(backend, resource).members

    def test_removing_members_again_changes_nothing(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        expect(backend, RemoveMembers(resource, self.people[:1]), Result.DONE)
        expect(backend, RemoveMembers(resource, self.people[:1]), Result.UNCHANGED)

    def test_removal_from_one_resource_leaves_the_other(self, backend: Backend, stem: str) -> None:
        one, two = (self.created(backend, stem, slug) for slug in ("one", "two"))
        list(backend.apply([AddMembers(name, self.people[:1]) for name in (one, two)]))
        expect(backend, RemoveMembers(one, self.people[:1]), Result.DONE)
        assert set(self.people[:1]) == found(backend, two).members

    def test_removal_from_a_resource_that_is_gone_is_no_failure(
        self, backend: Backend, stem: str
    ) -> None:
        expect(backend, RemoveMembers(f"{stem}-none", self.people[:1]), Result.UNCHANGED)

    def test_an_explanation_says_who_is_in_and_what_is_missing(
        self, backend: Backend, stem: str
    ) -> None:
        resource, missing = self.created(backend, stem), f"{stem}-none"
        expect(backend, AddMembers(resource, self.people[:1]), Result.DONE)
        found = backend.explain([resource, missing], self.people[:2])
        members = found.resources[resource].members
        assert [members[who].is_member for who in self.people[:2]] == [True, False]
        assert members[self.people[1]].refusals
        assert not found.resources[missing].exists

    def test_nobody_is_touched_by_an_empty_list(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        expect(backend, RemoveMembers(resource, ()), Result.UNCHANGED)
        expect(backend, AddMembers(resource, ()), Result.UNCHANGED)
        assert set(self.people[:2]) == found(backend, resource).members

    def test_coming_and_going_in_one_call_end_as_the_last_action_says(
        self, backend: Backend, stem: str
    ) -> None:
        resource = self.created(backend, stem)
        who = self.people[:1]
        come, go = AddMembers(resource, who), RemoveMembers(resource, who)
        outcomes = list(backend.apply([come, go, come]))
        assert [outcome.result for outcome in outcomes] == [Result.DONE] * 3
        assert set(who) == found(backend, resource).members


# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means


_DAY = timedelta(days=1)


class UsageConformance(Hooks):
    """Usage, of backends that offer the hook ``spend``."""

    @pytest.fixture
    def busy(self, backend: Backend, stem: str) -> str:
        """A resource with two members."""
        if type(self).spend is Hooks.spend:
            pytest.skip(f"no hook spend for {type(backend).__name__}")
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        return resource

    def test_usage_is_reported_by_user_and_in_total_exactly_and_reading_changes_nothing(
        self, backend: Backend, busy: str, stem: str
    ) -> None:
        idle = self.created(backend, stem, "idle")
        spent = [self.spend(backend, busy, user) for user in self.people[:2]]
        whole, before = _around(*spent), self.everything(backend)
        since = {busy: whole.start, idle: whole.start}
        report = backend.usage(since, whole)
        assert whole == report.period
        assert {idle, busy} == set(report.resources)
        assert not any(report.resources[idle].total.values())
        usage = report.resources[busy]
        for user, part in zip(self.people[:2], spent, strict=True):
            for component, amount in part.amounts.items():
                assert amount == usage.by_user[user][component]
        for component in spent[0].amounts:
            assert usage.total[component] == sum(part.amounts[component] for part in spent)
        assert report == backend.usage(since, whole)
        assert before == self.everything(backend)

    def test_only_what_was_used_within_the_period_and_by_this_resource_counts(
        self, backend: Backend, busy: str
    ) -> None:
        spent = self.spend(backend, busy, self.people[0])
        whole, first, last = _around(spent), spent.period.start, spent.period.end
        since = {busy: whole.start}
        parts = [Period(start=whole.start, end=first), Period(start=first, end=whole.end)]
        together = backend.usages(since, parts)
        assert [part.period for part in together] == parts
        before, after = (part.resources[busy].total for part in together)
        assert not any(before.values())
        assert {name: after[name] for name in spent.amounts} == dict(spent.amounts)
        alone = [backend.usage(since, part).resources for part in parts]
        assert alone == [part.resources for part in together]
        earlier = backend.usage({busy: last}, whole).resources[busy].total
        assert not any(earlier.values()), "it belonged to another resource of the same name"

    def test_usage_of_a_backend_that_is_away_is_not_zero(self, backend: Backend, busy: str) -> None:
        whole = _around(self.spend(backend, busy, self.people[0]))
        with self.unreachable(backend), pytest.raises(TemporaryError):
            backend.usage({busy: whole.start}, whole)


def _around(*spent: Spent) -> Period:
    """A time that has all of this in it, with a day to spare on both sides."""
    return Period(
        start=min(part.period.start for part in spent) - _DAY,
        end=max(part.period.end for part in spent) + _DAY,
    )


# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means


class AccessConformance(Hooks):
    """Pausing, downscaling and restoring."""

    @pytest.fixture
    def pausable(self, backend: Backend, stem: str) -> str:
        """A resource of a backend that can pause."""
        if SetAccess not in backend.supports:
            pytest.skip("SetAccess is not supported")
        return self.created(backend, stem)

    def test_restrictions_and_their_end_are_read_back_and_the_second_time_change_nothing(
        self, backend: Backend, pausable: str
    ) -> None:
        before = found(backend, pausable)
        for access in (*self.restrictions, Access.NORMAL):
            action = SetAccess(pausable, access, dict(before.metadata))
            expect(backend, action, Result.DONE)
            assert access is found(backend, pausable).access
            expect(backend, action, Result.UNCHANGED)
        assert before == found(backend, pausable)

    def test_without_a_memory_a_resource_becomes_usable_again(
        self, backend: Backend, pausable: str
    ) -> None:
        expect(backend, SetAccess(pausable, Access.PAUSED), Result.DONE)
        expect(backend, SetAccess(pausable, Access.NORMAL), Result.DONE)
        assert found(backend, pausable).access is Access.NORMAL

    def test_a_resource_that_is_not_restricted_is_left_alone(
        self, backend: Backend, pausable: str
    ) -> None:
        before = self.details(backend, pausable)
        expect(backend, SetAccess(pausable, Access.NORMAL), Result.UNCHANGED)
        assert before == self.details(backend, pausable)

    def test_a_restriction_keeps_members_and_limits(self, backend: Backend, pausable: str) -> None:
        expect(backend, AddMembers(pausable, self.people[:2]), Result.DONE)
        before = found(backend, pausable)
        expect(backend, SetAccess(pausable, Access.PAUSED), Result.DONE)
        after = found(backend, pausable)
        assert (before.members, before.limits) == (after.members, after.limits)

    def test_restricting_what_does_not_exist_is_refused(
        self, backend: Backend, pausable: str
    ) -> None:
        before = self.everything(backend)
        names = (f"{pausable}-none", *AWKWARD_NAMES)
        for outcome in backend.apply([SetAccess(name, Access.PAUSED) for name in names]):
            assert isinstance(outcome.error, PermanentError), outcome
        assert before == self.everything(backend)


class MemberLimitConformance(Hooks):
    """Limits of single members."""

    @pytest.fixture
    def shared(self, backend: Backend, stem: str) -> str:
        """A resource with two members, of a backend that can limit them."""
        if SetMemberLimits not in backend.supports:
            pytest.skip("SetMemberLimits is not supported")
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        return resource

    def test_limits_of_members_are_set_and_cleared_by_name_and_only_once(
        self, backend: Backend, shared: str
    ) -> None:
        (one, two), (ada, bob) = self.components, self.people[:2]
        both = [SetMemberLimits(shared, who, {one: Decimal(60), two: Decimal(2048)})
                for who in (ada, bob)]  # fmt: skip
        assert [o.result for o in backend.apply(both)] == [Result.DONE] * 2
        assert [o.result for o in backend.apply(both)] == [Result.UNCHANGED] * 2
        change = SetMemberLimits(shared, ada, {one: None})
        expect(backend, change, Result.DONE)
        expect(backend, change, Result.UNCHANGED)
        limits = found(backend, shared).member_limits
        assert {who: dict(limits[who]) for who in limits} == {
            ada: {two: 2048},
            bob: {one: 60, two: 2048},
        }
        assert dict(found(backend, shared).limits) == {}

    def test_an_impossible_limit_of_a_member_is_refused_and_changes_nothing(
        self, backend: Backend, shared: str
    ) -> None:
        one, two = self.components
        before = self.everything(backend)
        actions: list[Action] = [
            SetMemberLimits(shared, self.people[0], {one: Decimal(-1), two: Decimal(5)}),
            SetMemberLimits(shared, self.people[0], {"no-such-component": Decimal(5)}),
            SetMemberLimits(f"{shared}-none", self.people[0], {one: Decimal(5)}),
            *(SetMemberLimits(shared, name, {one: Decimal(5)}) for name in AWKWARD_NAMES),
        ]
        for outcome, action in zip(backend.apply(actions), actions, strict=True):
            check_outcome(outcome, action)
            assert isinstance(outcome.error, PermanentError), outcome
        assert before == self.everything(backend)

    def test_somebody_who_is_no_member_gets_no_limit_and_does_not_become_one(
        self, backend: Backend, shared: str
    ) -> None:
        stranger = SetMemberLimits(shared, self.people[2], {self.components[0]: Decimal(5)})
        expect(backend, stranger, Result.FAILED)
        assert set(self.people[:2]) == found(backend, shared).members


class HomeConformance(Hooks):
    """Home directories."""

    def test_a_missing_home_directory_is_made_once(self, backend: Backend) -> None:
        if CreateHomeDirectories not in backend.supports:
            pytest.skip("CreateHomeDirectories is not supported")
        homeless = self.homeless_person(backend)
        assert backend.missing_home_directories([homeless]) == {homeless}
        action = CreateHomeDirectories((*AWKWARD_NAMES, homeless))
        outcome = expect(backend, action, Result.DONE)
        assert tuple(entry.name for entry in outcome.skipped) == AWKWARD_NAMES
        assert backend.missing_home_directories([homeless]) == frozenset()
        expect(backend, action, Result.UNCHANGED)


# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means


class PlacementConformance(Hooks):
    """Naming resources."""

    def test_placing_is_repeatable_and_lists_containers_outermost_first(
        self, backend: Backend, stem: str
    ) -> None:
        placement = self.placement(backend, stem)
        assert placement == self.placement(backend, stem)
        containers = placement.containers
        assert [c.id for c in containers[:-1]] == [c.parent for c in containers[1:]]
        assert placement.parent == containers[-1].id

    def test_placing_reads_and_starts_nothing(self, backend: Backend, stem: str) -> None:
        before = dict(backend.commands_run())
        self.placement(backend, stem)
        assert before == dict(backend.commands_run())

    @pytest.mark.parametrize("name", AWKWARD_NAMES)
    def test_a_slug_that_is_no_name_is_refused(
        self, backend: Backend, stem: str, name: str
    ) -> None:
        with pytest.raises(PermanentError):
            backend.place(request_of(stem), name)


class CreationConformance(Hooks):
    """Making resources."""

    def test_a_created_resource_stands_where_it_was_placed(
        self, backend: Backend, stem: str
    ) -> None:
        placement = self.placement(backend, stem)
        self.created(backend, stem)
        state = backend.observe()
        for container in placement.containers:
            assert (container.parent or None) == state.resources[container.id].parent
        assert placement.parent == state.resources[placement.id].parent
        assert placement.organization == state.resources[placement.id].organization
        assert frozenset() == state.resources[placement.id].members

    def test_a_resource_is_created_with_its_limits(self, backend: Backend, stem: str) -> None:
        wanted = self.limits(600, 2048)
        resource = self.created(backend, stem, limits=wanted)
        assert wanted == dict(found(backend, resource).limits)

    def test_creating_again_changes_nothing(self, backend: Backend, stem: str) -> None:
        limits = {self.components[0]: Decimal(600)}
        action = CreateResource(self.placement(backend, stem), limits)
        expect(backend, action, Result.DONE)
        before = self.everything(backend)
        expect(backend, action, Result.UNCHANGED)
        assert before == self.everything(backend)

    def test_a_half_made_resource_gets_what_it_lacks(self, backend: Backend, stem: str) -> None:
        one = self.components[0]
        self.created(backend, stem)
        action = CreateResource(self.placement(backend, stem), {one: Decimal(600)})
        expect(backend, action, Result.DONE)
        assert self.limits(600, None) == dict(found(backend, action.resource).limits)

    def test_a_second_resource_uses_the_containers_of_the_first(
        self, backend: Backend, stem: str
    ) -> None:
        first, second = self.created(backend, stem), self.created(backend, stem, "two")
        container = self.placement(backend, stem).parent
        assert tuple(sorted((first, second))) == backend.observe().children(container)

    def test_an_account_of_somebody_else_is_neither_adopted_nor_touched(
        self, backend: Backend, stem: str
    ) -> None:
        placement = self.placement(backend, stem)
        self.make_foreign_account(backend, placement.id)
        before = self.details(backend, placement.id)
        actions: list[Action] = [
            CreateResource(placement, {self.components[0]: Decimal(600)}),
            AddMembers(placement.id, self.people[:1]),
        ]
        outcomes = list(backend.apply(actions))
        assert [outcome.result for outcome in outcomes] == [Result.FAILED, Result.FAILED]
        assert isinstance(outcomes[0].error, PermanentError)
        assert placement.id in str(outcomes[0].error)
        assert before == self.details(backend, placement.id)

    def test_work_on_others_leaves_a_foreign_account_as_it_was(
        self, backend: Backend, stem: str
    ) -> None:
        foreign = f"{stem}-foreign"
        self.make_foreign_account(backend, foreign)
        before = self.details(backend, foreign)
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        expect(backend, RemoveMembers(resource, self.people[:2]), Result.DONE)
        self.remove_all(backend, stem, resource)
        assert before == self.details(backend, foreign)

    def remove_all(self, backend: Backend, stem: str, resource: str) -> None:
        """Delete a resource and its containers, innermost first."""
        expect(backend, DeleteResource(resource), Result.DONE)
        for container in reversed(self.placement(backend, stem).containers):
            expect(backend, DeleteResource(container.id), Result.DONE)


class LimitConformance(Hooks):
    """Setting and clearing limits."""

    def test_limits_that_are_not_named_stay(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem, limits=self.limits(600, 2048))
        expect(backend, SetLimits(resource, {self.components[0]: Decimal(700)}), Result.DONE)
        assert self.limits(700, 2048) == dict(found(backend, resource).limits)

    def test_none_removes_a_limit(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem, limits=self.limits(600, 2048))
        expect(backend, SetLimits(resource, {self.components[0]: None}), Result.DONE)
        assert self.limits(None, 2048) == dict(found(backend, resource).limits)

    def test_setting_limits_again_changes_nothing(self, backend: Backend, stem: str) -> None:
        one, *others = self.components
        resource = self.created(backend, stem, limits=dict.fromkeys(others, 2048))
        action = SetLimits(resource, {one: Decimal(600), **dict.fromkeys(others)})
        expect(backend, action, Result.DONE)
        expect(backend, action, Result.UNCHANGED)

    def test_zero_is_a_limit_and_not_the_absence_of_one(self, backend: Backend, stem: str) -> None:
        one = self.components[0]
        resource = self.created(backend, stem)
        result = Result.UNCHANGED if self.prepaid else Result.DONE
        expect(backend, SetLimits(resource, {one: Decimal(0)}), result)
        assert {one: 0} == dict(found(backend, resource).limits)

    @pytest.mark.parametrize("amount", [Decimal(-1), Decimal("-0.5"), Decimal("NaN")])
    def test_an_impossible_amount_is_refused_and_changes_nothing(
        self, backend: Backend, stem: str, amount: Decimal
    ) -> None:
        one, *others = self.components
        resource = self.created(backend, stem, limits={one: 600})
        limits = {one: amount, **dict.fromkeys(others, Decimal(5))}
        expect_refusal(backend, SetLimits(resource, limits))
        assert self.limits(600, None) == dict(found(backend, resource).limits)

    def test_limits_of_a_resource_that_does_not_exist_are_refused(
        self, backend: Backend, stem: str
    ) -> None:
        expect_refusal(backend, SetLimits(f"{stem}-none", {self.components[0]: Decimal(1)}))


class DeletionConformance(Hooks):
    """Deleting resources."""

    def test_a_deleted_resource_is_gone_with_its_members(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        expect(backend, DeleteResource(resource), Result.DONE)
        assert resource not in backend.observe().resources

    def test_deleting_what_is_gone_changes_nothing(self, backend: Backend, stem: str) -> None:
        resource = self.created(backend, stem)
        expect(backend, DeleteResource(resource), Result.DONE)
        expect(backend, DeleteResource(resource), Result.UNCHANGED)

    def test_an_empty_project_container_goes_with_its_last_resource(
        self, backend: Backend, stem: str
    ) -> None:
        one, two = (self.created(backend, stem, slug) for slug in ("one", "two"))
        container = self.placement(backend, stem).parent
        expect(backend, DeleteResource(one, container), Result.DONE)
        assert container in backend.observe().resources
        expect(backend, DeleteResource(two, container), Result.DONE)
        assert container not in backend.observe().resources

    def test_a_container_with_resources_is_not_deleted(self, backend: Backend, stem: str) -> None:
        self.created(backend, stem)
        before = self.everything(backend)
        expect_refusal(backend, DeleteResource(self.placement(backend, stem).parent))
        assert before == self.everything(backend)

    def test_a_deleted_resource_can_be_made_again(self, backend: Backend, stem: str) -> None:
        one = self.components[0]
        resource = self.created(backend, stem, limits={one: 600})
        expect(backend, DeleteResource(resource), Result.DONE)
        self.created(backend, stem)
        assert self.limits(None, None) == dict(found(backend, resource).limits)


class MoveConformance(Hooks):
    """Moving the account of a project below another customer's."""

    @pytest.fixture
    def new_place(self, backend: Backend, stem: str) -> Placement:
        """Where the resource belongs once its project has gone to another customer."""
        if MoveContainer not in backend.supports:
            pytest.skip("MoveContainer is not supported")
        request = replace(request_of(stem), customer_slug=f"{stem}-other", customer_name="Other")
        place = backend.place(request, f"{stem}-one")
        if [container.kind for container in place.containers] != ["customer", "project"]:
            pytest.skip("accounts of projects are not below those of customers")
        return place

    def test_a_moved_project_keeps_its_resources_with_members_and_limits(
        self, backend: Backend, stem: str, new_place: Placement
    ) -> None:
        limits = {self.components[0]: 600}
        resources = [self.created(backend, stem, slug, limits) for slug in ("one", "two")]
        outcomes = backend.apply([AddMembers(name, self.people[:2]) for name in resources])
        assert [outcome.result for outcome in outcomes] == [Result.DONE] * 2
        before = [found(backend, name) for name in resources]
        previous = self.placement(backend, stem).containers[0].id
        expect(backend, MoveContainer(new_place.containers, previous), Result.DONE)
        state = backend.observe()
        new_customer, project = new_place.containers
        assert state.resources[project.id].parent == new_customer.id
        assert [state.resources[name] for name in resources] == before
        assert project.id not in state.children(previous)

    def test_moving_again_changes_nothing(
        self, backend: Backend, stem: str, new_place: Placement
    ) -> None:
        self.created(backend, stem)
        previous = self.placement(backend, stem).containers[0].id
        move = MoveContainer(new_place.containers, previous)
        expect(backend, move, Result.DONE)
        before = self.everything(backend)
        expect(backend, move, Result.UNCHANGED)
        assert before == self.everything(backend)

    def test_an_account_that_somebody_else_has_moved_stays_where_it_is(
        self, backend: Backend, stem: str, new_place: Placement
    ) -> None:
        resource = self.created(backend, stem)
        project = new_place.containers[-1].id
        before = [self.details(backend, name) for name in (project, resource)]
        outcome = expect(
            backend, MoveContainer(new_place.containers, f"{stem}-elsewhere"), Result.FAILED
        )
        assert isinstance(outcome.error, TemporaryError), "decided anew in the next cycle"
        assert before == [self.details(backend, name) for name in (project, resource)]

    def test_accounts_of_the_site_are_not_taken_for_those_of_customers(
        self, backend: Backend, stem: str, new_place: Placement
    ) -> None:
        del new_place  # only of backends that move accounts
        self.make_foreign_account(backend, f"{stem}-foreign")
        assert not backend.is_of_a_customer(found(backend, f"{stem}-foreign"))


_SHARE = 7


class BudgetConformance(Hooks):
    """Limits and shares of budgets."""

    @pytest.fixture
    def funded(self, backend: Backend, stem: str) -> str:
        """A resource with a member and a limit, of a backend that can set budgets."""
        if SetBudget not in backend.supports:
            pytest.skip("SetBudget is not supported")
        resource = self.created(backend, stem, limits=self.limits(600, 2048))
        expect(backend, AddMembers(resource, self.people[:1]), Result.DONE)
        return resource

    def test_a_budget_is_read_back_and_the_second_time_changes_nothing(
        self, backend: Backend, funded: str
    ) -> None:
        one = self.components[0]
        before = found(backend, funded)
        budgets = [
            SetBudget(funded, {one: Decimal(700)}, share=_SHARE),
            SetBudget(funded, {one: Decimal(50)}, per_job=True),
        ]
        for budget in budgets:
            expect(backend, budget, Result.DONE)
            expect(backend, budget, Result.UNCHANGED)
        after = found(backend, funded)
        assert dict(after.limits) == self.limits(700, 2048)
        assert dict(after.job_limits) == {one: 50}
        assert after.share == _SHARE
        assert (before.members, before.parent) == (after.members, after.parent)

    def test_the_end_of_a_budget_leaves_what_it_does_not_name(
        self, backend: Backend, funded: str
    ) -> None:
        one = self.components[0]
        expect(
            backend, SetBudget(funded, {one: Decimal(50)}, per_job=True, share=_SHARE), Result.DONE
        )
        expect(backend, SetBudget(funded, {one: None}, per_job=True), Result.DONE)
        after = found(backend, funded)
        assert dict(after.job_limits) == {}
        assert after.share == _SHARE
        assert dict(after.limits) == self.limits(600, 2048)

    def test_a_budget_of_what_does_not_exist_is_refused(
        self, backend: Backend, funded: str
    ) -> None:
        before = self.everything(backend)
        names = (f"{funded}-none", *AWKWARD_NAMES)
        for outcome in backend.apply([SetBudget(name, share=_SHARE) for name in names]):
            assert isinstance(outcome.error, PermanentError), outcome
        assert before == self.everything(backend)


class BackendConformance(
    PlacementConformance,
    CreationConformance,
    LimitConformance,
    MemberConformance,
    DeletionConformance,
    BatchConformance,
    AccessConformance,
    MemberLimitConformance,
    HomeConformance,
    UsageConformance,
    MoveConformance,
    BudgetConformance,
):
    """All of the contract; subclass it with a name that pytest collects."""
