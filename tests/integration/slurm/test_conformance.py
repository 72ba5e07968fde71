"""The contract of backends, on a real Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends.testing import BackendConformance
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from integration.conftest import RealSlurm
    from waldur_site_agent.backends import Backend


@pytest.mark.slurm
class TestRealSlurm(BackendConformance):
    people = ("wsatest1", "wsatest2", "wsatest3")
    unknown_person = "wsa-nobody"

    @pytest.fixture(autouse=True)
    def _cluster(self, real_slurm: RealSlurm, user_without_home: Callable[[], str]) -> None:
        self.slurm = real_slurm
        self.make_user = user_without_home

    @pytest.fixture
    def stem(self, prefix: str) -> str:
        return prefix

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        settings = SlurmSettings(
            lock_file=tmp_path / "lock", qos_paused="paused", qos_downscaled="limited"
        )
        return SlurmBackend(settings, {}, runner=self.slurm.runner())

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

    def unreachable(self, backend: Backend) -> AbstractContextManager[None]:
        assert isinstance(backend, SlurmBackend)
        return self.slurm.slurmdbd_stopped()
