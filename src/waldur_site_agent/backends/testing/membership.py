"""The contract about members, as tests."""

# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    AddMembers,
    RemoveMembers,
    Result,
    TemporaryError,
)
from waldur_site_agent.backends.testing.hooks import (
    Hooks,
    expect,
    expect_refusal,
    found,
)

if TYPE_CHECKING:
    from waldur_site_agent.backends import (
        Backend,
    )


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
        (left_out,) = outcome.left_out
        assert self.unknown_person == left_out.name
        assert isinstance(left_out.error, TemporaryError)
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
