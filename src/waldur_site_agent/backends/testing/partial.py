"""The contract of backends that cannot tell everything, name resources, or finish work later."""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import Decimal
from typing import ClassVar
from uuid import UUID

import pytest

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    Backend,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent.backends.testing.hooks import AWKWARD_NAMES, request_of
from waldur_site_agent.model.backend import Facts, ResourceFacts

# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means

_RESOURCE = UUID(int=0xFAC7)
_ORDER = UUID(int=0x0DE5)


class PartialBackendConformance:
    """For backends whose :class:`Capabilities` say that :meth:`Backend.observe` cannot tell all.

    Subclass it with a name that pytest collects, as :class:`BackendConformance` of the others.
    """

    people: ClassVar[tuple[str, ...]] = ("ada", "bob", "cyd")
    """At least three usernames that the backend can serve."""

    component: ClassVar[str] = "cpu"
    """A component type that can be limited."""

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend under test; must be overridden."""
        raise NotImplementedError

    @pytest.fixture
    def stem(self) -> str:
        """What the names of one test start with."""
        return "conf"

    def unreachable(self, backend: Backend) -> AbstractContextManager[None]:
        """Have a backend that cannot be reached while the body runs."""
        pytest.skip(f"no hook unreachable for {type(backend).__name__}")

    def finish(self, backend: Backend) -> None:
        """Let the backend finish what it has pending."""
        pytest.skip(f"no hook finish for {type(backend).__name__}")

    def facts(self, stem: str, backend_id: str = "") -> ResourceFacts:
        """What Waldur says of the test's resource; override it for a plugin that needs more."""
        return ResourceFacts(uuid=_RESOURCE, backend_id=backend_id, record={"name": stem})

    def creation(self, backend: Backend, stem: str) -> CreateResource:
        """The order of a resource, the same each time."""
        placement = backend.place(request_of(stem), f"{stem}-one")
        limits = {self.component: Decimal(60)}
        return CreateResource(placement, limits, facts=self.facts(stem), order=_ORDER)

    def created(self, backend: Backend, stem: str) -> str:
        """Make the resource, as an order does, and return the name that Waldur then has."""
        creation = self.creation(backend, stem)
        backend.hear(Facts(resources=(self.facts(stem),)))
        outcome = self.carried_out(backend, creation)
        name = outcome.assigned_id or creation.placement.id
        backend.hear(Facts(resources=(self.facts(stem, name),)))
        return name.lower()

    def carried_out(self, backend: Backend, action: Action) -> Outcome:
        """Apply an action, and let the backend finish it."""
        (outcome,) = backend.apply([action])
        assert outcome.error is None, outcome.error
        if outcome.result is Result.PENDING:
            assert backend.capabilities.finishes_later
            self.finish(backend)
            assert backend.progress(outcome.reference).result is Result.DONE
        return outcome

    def test_a_resource_is_there_once_it_was_created(self, backend: Backend, stem: str) -> None:
        name = self.created(backend, stem)
        assert name in backend.observe([name]).resources

    def test_an_id_of_its_own_comes_only_from_a_backend_that_says_so(
        self, backend: Backend, stem: str
    ) -> None:
        outcome = self.carried_out(backend, self.creation(backend, stem))
        assert backend.capabilities.assigns_ids or not outcome.assigned_id

    def test_a_repeated_creation_makes_nothing_new(self, backend: Backend, stem: str) -> None:
        """As after a kill between the creation and Waldur being told."""
        creation = self.creation(backend, stem)
        backend.hear(Facts(resources=(self.facts(stem),)))
        first = self.carried_out(backend, creation)
        again = CreateResource(
            creation.placement,
            creation.limits,
            facts=creation.facts,
            order=creation.order,
            may_exist=True,
        )
        (second,) = backend.apply([again])
        if second.error is None:
            assert first.assigned_id == second.assigned_id
        else:
            assert isinstance(second.error, TemporaryError), "it may not end the order"

    def test_a_pending_action_is_pending_under_the_same_reference_when_it_is_repeated(
        self, backend: Backend, stem: str
    ) -> None:
        (first,) = backend.apply([self.creation(backend, stem)])
        if first.result is not Result.PENDING:
            pytest.skip("it is not pending")
        (second,) = backend.apply([self.creation(backend, stem)])
        assert second.reference == first.reference
        assert backend.progress(first.reference).result is Result.PENDING

    def test_members_come_and_go_and_repetitions_are_no_failures(
        self, backend: Backend, stem: str
    ) -> None:
        name = self.created(backend, stem)
        for action in (
            AddMembers(name, self.people[:2]),
            AddMembers(name, self.people[:1]),
            RemoveMembers(name, self.people[:2]),
            RemoveMembers(name, self.people[:1]),
        ):
            if type(action) in backend.supports:
                self.carried_out(backend, action)

    def test_pausing_and_restoring_may_be_repeated(self, backend: Backend, stem: str) -> None:
        if SetAccess not in backend.supports:
            pytest.skip("SetAccess is not supported")
        name = self.created(backend, stem)
        for access in (Access.PAUSED, Access.PAUSED, Access.NORMAL, Access.NORMAL):
            self.carried_out(backend, SetAccess(name, access))
        assert name in backend.observe([name]).resources

    def test_a_deleted_resource_is_gone_and_deleting_it_again_is_no_failure(
        self, backend: Backend, stem: str
    ) -> None:
        name = self.created(backend, stem)
        self.carried_out(backend, DeleteResource(name, order=_ORDER))
        assert name not in backend.observe([name]).resources
        self.carried_out(backend, DeleteResource(name, order=_ORDER))

    def test_unknown_and_awkward_resources_are_refused_and_change_nothing(
        self, backend: Backend, stem: str
    ) -> None:
        name = self.created(backend, stem)
        for unknown in (f"{stem}-none", *AWKWARD_NAMES):
            (outcome,) = backend.apply([SetLimits(unknown, {self.component: Decimal(1)})])
            assert isinstance(outcome.error, PermanentError), outcome
        assert name in backend.observe([name]).resources

    def test_a_backend_that_is_away_is_temporary_trouble_for_everything(
        self, backend: Backend, stem: str
    ) -> None:
        name = self.created(backend, stem)
        actions: list[Action] = [
            AddMembers(name, self.people[:1]),
            SetLimits(name, {self.component: Decimal(1)}),
            DeleteResource(name),
        ]
        with self.unreachable(backend):
            with pytest.raises(TemporaryError):
                backend.observe([name])
            outcomes = list(backend.apply(actions))
            assert list(backend.diagnose()) is not None
        assert all(isinstance(outcome.error, TemporaryError) for outcome in outcomes), outcomes
        assert name in backend.observe([name]).resources
