"""The contract about how far a resource may be used, by its members and by each of them."""

# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateHomeDirectories,
    PermanentError,
    Result,
    SetAccess,
    SetMemberLimits,
)
from waldur_site_agent.backends.testing.hooks import (
    AWKWARD_NAMES,
    Hooks,
    check_outcome,
    expect,
    found,
)

if TYPE_CHECKING:
    from waldur_site_agent.backends import Action, Backend


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
        assert tuple(entry.name for entry in outcome.left_out) == AWKWARD_NAMES
        assert backend.missing_home_directories([homeless]) == frozenset()
        expect(backend, action, Result.UNCHANGED)
