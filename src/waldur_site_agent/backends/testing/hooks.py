"""What a plugin tells the conformance suite, and the small steps that its tests share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar

import pytest

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    Backend,
    BackendResource,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.usage import Period

# ruff: noqa: S101 - assertions are what a test suite is made of


AWKWARD_NAMES = (
    "",
    "a,root",
    "x[1-3]",
    "-i",
    "../x",
    "name=root",
    "a" * 300,
    "Ünï",
    "A B",
    "a\nb",
    "a|b",
    "a'b",
    'a"b',
    "50%",
    "*",
    "root",
)
"""Names that a shell, a list or a table would misread. No backend may accept any of them."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What somebody used of a resource, and when; it is over."""

    period: Period
    amounts: Mapping[str, Fraction]
    """By component type, in backend units."""


class Hooks:
    """What a plugin offers the suite. Each test gets a fresh ``backend``."""

    people: ClassVar[tuple[str, ...]] = ("ada", "bob", "cyd")
    """At least three usernames that the backend can serve."""

    unknown_person: ClassVar[str | None] = None
    """A username that is well formed and has to wait (the operating system does not know it)."""

    components: ClassVar[tuple[str, ...]] = ("cpu", "mem")
    """Two component types that can be limited, or the only one."""

    prepaid: ClassVar[bool] = False
    """Whether nothing can be used but what was bought: a limit that nobody set is then zero."""

    restrictions: ClassVar[tuple[Access, ...]] = (Access.PAUSED, Access.DOWNSCALED)
    """The ways in which the backend can restrict a resource."""

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend under test; must be overridden."""
        raise NotImplementedError

    @pytest.fixture
    def stem(self) -> str:
        """What all names of one test start with; override it where tests share one backend."""
        return "conf"

    def make_foreign_account(self, backend: Backend, name: str) -> None:
        """Make an account as an administrator would, that no placement asks for.

        It must look like nothing that the agent makes: another parent, another organization.
        """
        pytest.skip(f"{type(backend).__name__}: no hook make_foreign_account (for {name})")

    def details(self, backend: Backend, resource: str) -> object:
        """One resource in all its detail, to be compared before and after.

        Override it where :meth:`Backend.observe` does not show everything that could be damaged.
        """
        return found(backend, resource)

    def everything(self, backend: Backend) -> object:
        """All that the backend has, in detail, to be compared before and after.

        Override it where :meth:`Backend.observe` does not show everything that could be damaged.
        """
        return backend.observe()

    def unreachable(self, backend: Backend) -> AbstractContextManager[None]:
        """Have a backend that cannot be reached while the body runs."""
        pytest.skip(f"no hook unreachable for {type(backend).__name__}")

    def homeless_person(self, backend: Backend) -> str:
        """Name a user who should have a home directory and has none; clean up afterwards."""
        pytest.skip(f"no hook homeless_person for {type(backend).__name__}")

    def limits(self, *amounts: int | None) -> dict[str, int]:
        """What a resource shows whose components were limited so; ``None``: not limited.

        A backend with one component shows the first amount alone.
        """
        unset = 0 if self.prepaid else None
        pairs = zip(self.components, amounts, strict=False)
        shown = {name: unset if amount is None else amount for name, amount in pairs}
        return {name: amount for name, amount in shown.items() if amount is not None}

    def spend(self, backend: Backend, resource: str, user: str) -> Spent:
        """Let a member use something of a resource, and say what; each call adds to it."""
        pytest.skip(f"no hook spend for {type(backend).__name__} ({user} of {resource})")

    def placement(self, backend: Backend, stem: str, slug: str = "one") -> Placement:
        """Place a resource of the test's own project."""
        return backend.place(request_of(stem), f"{stem}-{slug}")

    def created(
        self,
        backend: Backend,
        stem: str,
        slug: str = "one",
        limits: Mapping[str, int] | None = None,
    ) -> str:
        """Make a resource and return its name."""
        placement = self.placement(backend, stem, slug)
        amounts = {name: Decimal(amount) for name, amount in (limits or {}).items()}
        expect(backend, CreateResource(placement, amounts), Result.DONE)
        return placement.id


def request_of(stem: str) -> ResourceRequest:
    """Return a request of one project; the texts are as free as people write them."""
    return ResourceRequest(
        resource_name=f'Climate\'s "model" | {stem}\nsecond line',
        project_slug=f"{stem}-proj",
        project_name="Ünïversity, project = 1",
        customer_slug=f"{stem}-cust",
        customer_name="-i name=root",
    )


def expect(backend: Backend, action: Action, result: Result) -> Outcome:
    """Apply one action and check its outcome against the contract and the expected result."""
    (outcome,) = backend.apply([action])
    check_outcome(outcome, action)
    assert result is outcome.result, outcome
    return outcome


def check_outcome(outcome: Outcome, action: Action) -> None:
    """Check what holds for every outcome."""
    assert action is outcome.action
    assert (outcome.result is Result.FAILED) == (outcome.error is not None), outcome
    if outcome.error is not None:
        assert str(outcome.error), "an error says what, why and what to do"


def expect_refusal(backend: Backend, action: Action) -> Outcome:
    """Apply one action that cannot work and check that it failed for good."""
    outcome = expect(backend, action, Result.FAILED)
    assert isinstance(outcome.error, PermanentError), outcome.error
    return outcome


def found(backend: Backend, resource: str) -> BackendResource:
    """Read one resource back."""
    return backend.observe([resource]).resources[resource]


# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means


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
        assert tuple(entry.name for entry in outcome.skipped) == AWKWARD_NAMES
        assert all(isinstance(entry.error, PermanentError) for entry in outcome.skipped)
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

    def test_resources_that_are_asked_for_are_read_as_all_of_them_are(
        self, backend: Backend, stem: str
    ) -> None:
        one, two = (self.created(backend, stem, slug) for slug in ("one", "two"))
        expect(backend, AddMembers(one, self.people[:2]), Result.DONE)
        whole, some = backend.observe(), backend.observe([one, two, f"{stem}-none"])
        assert [whole.resources[name] for name in (one, two)] == [
            some.resources[name] for name in (one, two)
        ]
        assert f"{stem}-none" not in some.resources
        for name, resource in some.resources.items():
            assert whole.resources[name] == resource

    def test_resources_of_users_are_all_found_or_not_told(
        self, backend: Backend, stem: str
    ) -> None:
        one, two = (self.created(backend, stem, slug) for slug in ("one", "two"))
        for name, members in ((one, self.people[:2]), (two, self.people[:1])):
            expect(backend, AddMembers(name, members), Result.DONE)
        backend.observe()
        for people, expected in ((self.people[:1], {one, two}), (self.people[1:2], {one})):
            told = backend.resources_with(people)
            assert told is None or expected <= told

    def test_awkward_names_that_are_asked_for_name_nothing_else(
        self, backend: Backend, stem: str
    ) -> None:
        resource = self.created(backend, stem)
        whole = backend.observe().resources
        for name in AWKWARD_NAMES:
            some = backend.observe([name, resource]).resources
            assert some[resource] == whole[resource]
            assert (name in some) <= (name in whole)

    def test_the_parts_of_a_session_build_on_what_those_before_them_did(
        self, backend: Backend, stem: str
    ) -> None:
        placement = self.placement(backend, stem)
        with backend.session():
            assert placement.id not in backend.observe().resources
            expect(backend, CreateResource(placement), Result.DONE)
            expect(backend, AddMembers(placement.id, self.people[:2]), Result.DONE)
            expect(backend, RemoveMembers(placement.id, self.people[:1]), Result.DONE)
            assert {self.people[1]} == found(backend, placement.id).members
            expect(backend, DeleteResource(placement.id), Result.DONE)
        assert placement.id not in backend.observe().resources

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
            with pytest.raises(TemporaryError):
                backend.observe([resource])
            outcomes = list(backend.apply(actions))
        assert [outcome.result for outcome in outcomes] == [Result.FAILED] * 2
        assert all(isinstance(outcome.error, TemporaryError) for outcome in outcomes)
        assert resource in backend.observe().resources

    def test_a_diagnosis_never_raises(self, backend: Backend) -> None:
        assert all(check.name for check in backend.diagnose())
        with self.unreachable(backend):
            assert any(check.remedy or check.detail for check in backend.diagnose())
