"""The contract about whole calls: many actions, odd names, reading, a backend that is away."""

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
    TemporaryError,
)
from waldur_site_agent.backends.testing.hooks import (
    AWKWARD_NAMES,
    Hooks,
    check_outcome,
    expect,
    found,
)

if TYPE_CHECKING:
    from waldur_site_agent.backends import (
        Action,
        Backend,
    )


class BatchConformance(Hooks):
    """Many actions, names from outside, and reading."""

    def test_a_resource_and_its_members_are_made_in_one_call(
        self, backend: Backend, stem: str
    ) -> None:
        placements = [self.placement(backend, stem, f"r{number}") for number in range(3)]
        actions: list[Action] = []
        for placement in placements:
            actions.append(CreateResource(placement, {self.components[0]: Decimal(60)}))
            actions.append(AddMembers(placement.id, self.people[:2]))
        outcomes = list(backend.apply(actions))
        assert [outcome.result for outcome in outcomes] == [Result.DONE] * 6
        state = backend.observe()
        for placement in placements:
            assert set(self.people[:2]) == state.resources[placement.id].members

    def test_outcomes_are_one_per_action_in_their_order_and_a_bad_one_stops_nobody(
        self, backend: Backend, stem: str
    ) -> None:
        one = self.components[0]
        good, second = (self.created(backend, stem, slug) for slug in ("one", "two"))
        actions: list[Action] = [
            SetLimits(f"{stem}-none", {one: Decimal(1)}),
            SetLimits(good, {one: Decimal(60)}),
            SetLimits("a,root", {one: Decimal(1)}),
            AddMembers(second, self.people[:1]),
            DeleteResource(f"{stem}-none"),
        ]
        outcomes = list(backend.apply(actions))
        for outcome, action in zip(outcomes, actions, strict=True):
            check_outcome(outcome, action)
        expected = [Result.FAILED, Result.DONE, Result.FAILED, Result.DONE, Result.UNCHANGED]
        assert expected == [outcome.result for outcome in outcomes]
        assert self.limits(60, None) == dict(found(backend, good).limits)

    def test_awkward_usernames_are_left_out_and_change_nothing_else(
        self, backend: Backend, stem: str
    ) -> None:
        resource = self.created(backend, stem)
        members = (*AWKWARD_NAMES, self.people[0])
        outcome = expect(backend, AddMembers(resource, members), Result.DONE)
        assert tuple(entry.name for entry in outcome.left_out) == AWKWARD_NAMES
        assert all(isinstance(entry.error, PermanentError) for entry in outcome.left_out)
        before = self.everything(backend)
        expect(backend, RemoveMembers(resource, AWKWARD_NAMES), Result.UNCHANGED)
        assert {self.people[0]} == found(backend, resource).members
        assert before == self.everything(backend)

    def test_awkward_resource_names_are_refused_and_change_nothing(self, backend: Backend) -> None:
        before = self.everything(backend)
        limits = {self.components[0]: Decimal(1)}
        actions: list[Action] = [
            *(SetLimits(name, limits) for name in AWKWARD_NAMES),
            *(AddMembers(name, self.people[:1]) for name in AWKWARD_NAMES),
            *(RemoveMembers(name, self.people[:1]) for name in AWKWARD_NAMES),
            *(DeleteResource(name) for name in AWKWARD_NAMES),
        ]
        for outcome, action in zip(backend.apply(actions), actions, strict=True):
            check_outcome(outcome, action)
            assert isinstance(outcome.error, PermanentError), outcome
        assert before == self.everything(backend)

    def test_two_readings_agree_and_every_parent_is_there(
        self, backend: Backend, stem: str
    ) -> None:
        resource = self.created(backend, stem)
        state = backend.observe()
        assert state == backend.observe()
        assert all(key == entry.id for key, entry in state.resources.items())
        parents = {entry.parent for entry in state.resources.values()} - {None}
        assert parents <= set(state.resources)
        assert state.resources[resource] == backend.observe([resource]).resources[resource]

    def test_nothing_to_do_is_answered_without_work(self, backend: Backend) -> None:
        before = dict(backend.commands_run())
        assert list(backend.apply([])) == []
        assert before == dict(backend.commands_run())

    def test_a_backend_that_is_away_is_temporary_trouble_for_every_action(
        self, backend: Backend, stem: str
    ) -> None:
        resource = self.created(backend, stem)
        actions: list[Action] = [
            AddMembers(resource, self.people[:1]),
            DeleteResource(resource),
        ]
        with self.unreachable(backend):
            with pytest.raises(TemporaryError):
                backend.observe()
            outcomes = list(backend.apply(actions))
        assert [outcome.result for outcome in outcomes] == [Result.FAILED] * 2
        assert all(isinstance(outcome.error, TemporaryError) for outcome in outcomes)
        assert resource in backend.observe().resources

    def test_a_diagnosis_never_raises(self, backend: Backend) -> None:
        assert all(check.name for check in backend.diagnose())
        with self.unreachable(backend):
            assert any(check.remedy or check.detail for check in backend.diagnose())
