"""The ported backend held against the contract, and the old one behind the adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from campus_folders.backend import FolderBackend, FolderSettings
from waldur_site_agent.backends import Access, Backend
from waldur_site_agent.backends.testing import BackendConformance, PartialBackendConformance
from waldur_site_agent.model.backend import ResourceFacts
from waldur_site_agent.model.marketplace import Component

COMPONENTS = {
    name: Component(type=name, measured_unit="GB", label=name, accounting_type="limit")
    for name in ("cpu", "mem")
}


class FakeFileServer:
    """Folders in memory, behind a transport of httpx."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, Any]] = {}
        self.is_away = False

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("no answer")
        words = request.url.path.strip("/").split("/")
        if request.method == "GET":
            return httpx.Response(200, json=list(self.folders.values()))
        name = words[1]
        is_folder = len(words) == len(("folders", name))
        if request.method == "DELETE" and is_folder:
            self.folders.pop(name)
        elif is_folder:
            empty = {"name": name, "users": [], "limits": {}, "paused": False}
            self.folders[name] = {
                **empty,
                **self.folders.get(name, {}),
                **json.loads(request.content),
            }
        elif request.method == "PUT":
            self.folders[name]["users"] = sorted({*self.folders[name]["users"], words[3]})
        else:
            self.folders[name]["users"].remove(words[3])
        return httpx.Response(200)


class TestFolderBackend(BackendConformance):
    restrictions = (Access.PAUSED,)

    @pytest.fixture
    def backend(self, monkeypatch: pytest.MonkeyPatch) -> Backend:
        self.server = FakeFileServer()
        transport = httpx.MockTransport(self.server.answer)
        monkeypatch.setattr(FolderBackend, "transport", transport)
        return FolderBackend(FolderSettings(url="http://files"), COMPONENTS)

    def make_foreign_account(self, backend: Backend, name: str) -> None:
        foreign = {"title": "", "project": "physics", "limits": {}, "users": [], "paused": False}
        self.server.folders[name] = {"name": name, **foreign}

    @contextmanager
    def unreachable(self, backend: Backend) -> Iterator[None]:
        self.server.is_away = True
        yield
        self.server.is_away = False


class TestFolderBackendOfVersion1(PartialBackendConformance):
    @pytest.fixture
    def backend(self, monkeypatch: pytest.MonkeyPatch) -> Backend:
        adapter = pytest.importorskip("waldur_site_agent_v1_plugins.adapter")
        from importlib.metadata import EntryPoint  # noqa: PLC0415

        value = "campus_folders.version_1:FolderBackend"
        cls = adapter.adapt(EntryPoint("folders", value, "waldur_site_agent.backends"), "folders")
        self.server = FakeFileServer()
        transport = httpx.MockTransport(self.server.answer)
        monkeypatch.setattr(cls.plugin.cls, "transport", transport)
        return cls(cls.Settings.model_validate({"url": "http://files"}), COMPONENTS)

    def facts(self, stem: str, backend_id: str = "") -> ResourceFacts:
        record = {"name": stem, "slug": stem, "project_slug": stem, "limits": {"cpu": 1}}
        return ResourceFacts(uuid=UUID(int=7), backend_id=backend_id, record=record)

    @contextmanager
    def unreachable(self, backend: Backend) -> Iterator[None]:
        self.server.is_away = True
        yield
        self.server.is_away = False
