"""The contract, as tests."""

# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    PermanentError,
    RemoveMembers,
    Result,
    SetLimits,
)
from waldur_site_agent.backends.testing.calls import BatchConformance
from waldur_site_agent.backends.testing.hooks import (
    AWKWARD_NAMES,
    Hooks,
    expect,
    expect_refusal,
    found,
    request_of,
)
from waldur_site_agent.backends.testing.membership import MemberConformance
from waldur_site_agent.backends.testing.spending import UsageConformance
from waldur_site_agent.backends.testing.using import (
    AccessConformance,
    HomeConformance,
    MemberLimitConformance,
)

if TYPE_CHECKING:
    from waldur_site_agent.backends import (
        Action,
        Backend,
    )


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
):
    """All of the contract; subclass it with a name that pytest collects."""
