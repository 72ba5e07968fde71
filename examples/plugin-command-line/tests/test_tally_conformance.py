"""The backend held against the contract, with a fake of the tool."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from tally_backend.backend import TallyBackend, TallySettings
from waldur_site_agent.backends import Backend
from waldur_site_agent.backends.batches import BackendUnavailableError
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.backends.testing import BackendConformance, Spent
from waldur_site_agent.model.usage import Period

FAKE = Path(__file__).with_name("tallyctl")
TALLYCTL = runpy.run_path(str(FAKE))


class InProcess:
    """A runner that calls the fake instead of starting it: hundreds of commands in a second."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        try:
            printed = TALLYCTL["answer"](self._ledger, *argv[1:])
        except TALLYCTL["RefusedError"] as refused:
            code, message = refused.args
            return CommandResult(tuple(argv), code, "", message)
        return CommandResult(tuple(argv), 0, printed, "")


class TestTallyBackend(BackendConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        self.ledger = tmp_path / "ledger.json"
        self.ledger.write_text("{}")
        settings = TallySettings(tally_path=tmp_path, lock_file=tmp_path / "lock")
        return TallyBackend(settings, {}, runner=InProcess(self.ledger))

    def run(self, *words: str) -> None:
        TALLYCTL["answer"](self.ledger, *words)

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


def test_the_tool_itself_is_run_as_a_process(tmp_path: Path) -> None:
    tool, ledger = Path(shutil.copy(FAKE, tmp_path)), tmp_path / "ledger.json"
    ledger.write_text("{}")
    backend = TallyBackend(TallySettings(tally_path=tmp_path, lock_file=tmp_path / "lock"), {})
    subprocess.run([tool, "add-account", "a_run", "--parent=root", "--organization=p"], check=True)
    assert set(backend.observe([]).resources) == {"root", "a_run"}
    ledger.unlink()
    with pytest.raises(BackendUnavailableError, match="the ledger cannot be reached"):
        backend.observe([])
