"""The backend held against the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from my_site_backend.backend import JsonFileBackend, JsonFileSettings
from waldur_site_agent.backends import Backend
from waldur_site_agent.backends.testing import BackendConformance


class TestJsonFileBackend(BackendConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        self.file = tmp_path / "accounts.json"
        self.file.write_text("{}")
        return JsonFileBackend(JsonFileSettings(file=self.file), {})

    def make_foreign_account(self, backend: Backend, name: str) -> None:
        accounts = json.loads(self.file.read_text())
        foreign = {"parent": "root", "organization": "physics", "members": [], "limits": {}}
        self.file.write_text(json.dumps({**accounts, name: foreign}))

    @contextmanager
    def unreachable(self, backend: Backend) -> Iterator[None]:
        away = self.file.with_suffix(".away")
        self.file.rename(away)
        try:
            yield
        finally:
            away.rename(self.file)
