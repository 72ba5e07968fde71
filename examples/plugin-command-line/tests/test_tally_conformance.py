"""The backend held against the contract, with a fake of the tool."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from tally_backend.backend import TallyBackend, TallySettings
from waldur_site_agent.backends import Backend
from waldur_site_agent.backends.testing import BackendConformance, Spent
from waldur_site_agent.model.usage import Period

FAKE = Path(__file__).with_name("tallyctl")


class TestTallyBackend(BackendConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        self.tool = Path(shutil.copy(FAKE, tmp_path))
        self.ledger = tmp_path / "ledger.json"
        self.ledger.write_text("{}")
        settings = TallySettings(tally_path=tmp_path, lock_file=tmp_path / "lock")
        return TallyBackend(settings, {})

    def run(self, *words: str) -> None:
        subprocess.run([self.tool, *words], check=True)

    def make_foreign_account(self, backend: Backend, name: str) -> None:
        self.run("add-account", name, "--parent=root", "--organization=physics")

    def spend(self, backend: Backend, resource: str, user: str) -> Spent:
        at = datetime(2026, 3, 10, 12, tzinfo=UTC)
        self.run("charge", resource, user, "cpu", "0.1", at.isoformat())
        period = Period(start=at - timedelta(hours=1), end=at + timedelta(hours=1))
        return Spent(period, {"cpu": Fraction(1, 10)})

    @contextmanager
    def unreachable(self, backend: Backend) -> Iterator[None]:
        away = self.ledger.rename(self.ledger.with_suffix(".away"))
        try:
            yield
        finally:
            away.rename(self.ledger)
