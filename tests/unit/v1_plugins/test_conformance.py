"""The suite of the contract, with a plugin of version 1 behind the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from harness.testbed import COMPONENTS
from harness.v1_site import CAMPUS, CLOUD, OLD, adapted, campus
from waldur_site_agent.backends import Backend
from waldur_site_agent.backends.testing import PartialBackendConformance
from waldur_site_agent.model.backend import ResourceFacts


class TestPluginThatKeepsIds(PartialBackendConformance):
    entry_point = CAMPUS

    @pytest.fixture
    def backend(self) -> Backend:
        campus().forget()
        cls: Any = adapted(self.entry_point)
        components = {name: each.component(name) for name, each in COMPONENTS.items()}
        backend: Backend = cls(cls.Settings(), components)
        return backend

    @contextmanager
    def unreachable(self, backend: Backend) -> Iterator[None]:  # noqa: ARG002 - the suite's
        campus().STATE["away"] = True
        yield
        campus().STATE["away"] = False

    def facts(self, stem: str, backend_id: str = "") -> ResourceFacts:
        record = {"name": stem, "slug": f"{stem}-one", "project_slug": stem, "limits": {"cpu": 1}}
        return ResourceFacts(
            uuid=UUID(int=7), backend_id=backend_id, record={**record, "backend_id": backend_id}
        )

    def finish(self, backend: Backend) -> None:  # noqa: ARG002 - the suite's
        jobs = campus().JOBS
        jobs.update(dict.fromkeys(jobs, True))


class TestPluginThatGivesIds(TestPluginThatKeepsIds):
    entry_point = CLOUD


class TestPluginOfVersion07(TestPluginThatKeepsIds):
    entry_point = OLD
