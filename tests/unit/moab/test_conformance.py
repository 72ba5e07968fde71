"""The contract of backends, on the simulated accounting manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import Access
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.processes import ProcessRunner
from waldur_site_agent.backends.testing import BackendConformance
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.names import user_name
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.simulator import Outage, SimulatedMam

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from waldur_site_agent.backends import Backend


class TestSimulatedMam(BackendConformance):
    components = ("deposit",)
    prepaid = True
    restrictions = (Access.PAUSED,)
    unknown_person = "dora"

    @pytest.fixture(autouse=True)
    def _mam(self) -> None:
        self.mam = SimulatedMam()
        self.mam.state.unknown_users.append("dora")

    @pytest.fixture(params=["", "root"], ids=["no account above", "default account"])
    def backend(self, tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
        settings = MoabSettings(
            lock_file=tmp_path / "lock", default_account=request.param, pause_by_deactivation=True
        )
        helper = tmp_path / "mkhomedir_helper"
        helper.write_text(f'#!/bin/sh\nmkdir "{tmp_path}/home-$1"\n', encoding="utf-8")
        helper.chmod(0o755)
        homes = HomeDirectories(
            ProcessRunner(),
            settings,
            user_name,
            (helper,),
            lambda user: tmp_path / f"home-{user}" if user in self.people else None,
        )
        return MoabBackend(settings, {}, runner=self.mam.runner(), homes=homes)

    def homeless_person(self, backend: Backend) -> str:
        assert isinstance(backend, MoabBackend)
        return self.people[0]

    def make_foreign_account(self, backend: Backend, name: str) -> None:
        assert isinstance(backend, MoabBackend)
        self.mam.run(["mam-create-account", "-a", name, "-d", "theirs", "-o", "physics"])
        self.mam.run(["mam-create-fund", "-a", name])
        self.mam.run(["mam-deposit", "-f", str(self.mam.state.next_id - 1), "-z", "7"])
        self.mam.run(["mam-modify-account", "-a", name, "--add-user", "someone"])

    def everything(self, backend: Backend) -> object:
        assert isinstance(backend, MoabBackend)
        return self.mam.state.to_json()

    def unreachable(self, backend: Backend) -> AbstractContextManager[None]:
        assert isinstance(backend, MoabBackend)
        return self.mam.outage(Outage.REFUSED)
