"""The contract of backends, on a real Slurm."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from integration.slurm.accounting_database import AccountingDatabase
from waldur_site_agent.backends.testing import BackendConformance, Spent
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import PeriodicLimits, SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from integration.conftest import RealSlurm
    from waldur_site_agent.backends import Backend


_jobs = itertools.count(910_000)


@pytest.mark.slurm
class TestRealSlurm(BackendConformance):
    people = ("wsatest1", "wsatest2", "wsatest3")
    unknown_person = "wsa-nobody"

    @pytest.fixture(autouse=True)
    def _cluster(
        self, real_slurm: RealSlurm, user_without_home: Callable[[], str]
    ) -> Iterator[None]:
        self.slurm = real_slurm
        self.make_user = user_without_home
        self.database, self.spenders = AccountingDatabase(real_slurm), set[str]()
        yield
        for account in self.spenders:
            self.database.forget(account)

    @pytest.fixture
    def stem(self, prefix: str) -> str:
        return prefix

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        settings = SlurmSettings(
            lock_file=tmp_path / "lock",
            qos_paused="paused",
            qos_downscaled="limited",
            periodic_limits=PeriodicLimits(enabled=True),
        )
        counted = {
            name: Component(type=name, measured_unit="h", label=name, accounting_type="usage")
            for name in self.components
        }
        return SlurmBackend(settings, counted, runner=self.slurm.runner())

    def make_foreign_account(self, backend: Backend, name: str) -> None:
        assert isinstance(backend, SlurmBackend)
        self.slurm.sacctmgr("add", "account", f"name={name}", "parent=root", "GrpTRESMins=cpu=7")
        self.slurm.sacctmgr("add", "user", "name=wsatest4", f"account={name}", "Fairshare=3")

    def details(self, backend: Backend, resource: str) -> object:
        assert isinstance(backend, SlurmBackend)
        return self.slurm.associations(f"{resource}|")

    def homeless_person(self, backend: Backend) -> str:
        assert isinstance(backend, SlurmBackend)
        return self.make_user()

    def spend(self, backend: Backend, resource: str, user: str) -> Spent:
        assert isinstance(backend, SlurmBackend)
        start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 1, tzinfo=UTC)
        epochs = (int(start.timestamp()), int(end.timestamp()))
        self.spenders.add(resource)
        self.database.insert(next(_jobs), resource, user, *epochs)
        amounts = {"cpu": Fraction(120), "mem": Fraction(300 * 60)}
        return Spent(Period(start=start, end=end), amounts)

    def unreachable(self, backend: Backend) -> AbstractContextManager[None]:
        assert isinstance(backend, SlurmBackend)
        return self.slurm.slurmdbd_stopped()
