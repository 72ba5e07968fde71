"""The suite for backends that cannot tell everything, with backends of various capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import KillSwitch
from harness.cloud import Cloud, CloudBackend
from waldur_site_agent.backends import Backend, Capabilities
from waldur_site_agent.backends.testing import PartialBackendConformance


class TestBackendThatTellsLittle(PartialBackendConformance):
    capabilities = Capabilities(
        tells_members=False,
        tells_limits=False,
        tells_access=False,
        tells_all=False,
        recognizes_unfinished=False,
        needs_facts=True,
    )
    slow: frozenset[str] = frozenset()

    @pytest.fixture
    def backend(self) -> Backend:
        self.cloud = Cloud(slow={*self.slow})
        return CloudBackend(self.cloud, KillSwitch(), self.capabilities)

    @contextmanager
    def unreachable(self, backend: Backend) -> Iterator[None]:  # noqa: ARG002 - the suite's
        self.cloud.is_away = True
        yield
        self.cloud.is_away = False

    def finish(self, backend: Backend) -> None:  # noqa: ARG002 - the suite's
        self.cloud.finish()


class TestBackendThatNamesResources(TestBackendThatTellsLittle):
    capabilities = Capabilities(assigns_ids=True, recognizes_unfinished=False)


class TestBackendThatFinishesLater(TestBackendThatTellsLittle):
    capabilities = Capabilities(
        assigns_ids=True, recognizes_unfinished=False, finishes_later=True, tells_members=False
    )
    slow = frozenset({"create", "limits", "delete"})
