"""The contract of backends, on the simulated Slurm."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import RemoveMembers
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.testing import BackendConformance, Spent
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import ProcessRunner
from waldur_site_agent_slurm.names import user_name
from waldur_site_agent_slurm.settings import PeriodicLimits, SlurmSettings
from waldur_site_agent_slurm.simulator import Outage, SimulatedSlurm

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from waldur_site_agent.backends import Backend


class TestSimulatedSlurm(BackendConformance):
    unknown_person = "dora"

    @pytest.fixture(autouse=True, params=["22.05", "24.11"])
    def _cluster(self, request: pytest.FixtureRequest) -> None:
        self.slurm = SimulatedSlurm(version=request.param)

    @pytest.fixture(params=[None, "simulated"], ids=["only cluster", "named cluster"])
    def backend(self, tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
        settings = SlurmSettings(
            lock_file=tmp_path / "lock",
            cluster=request.param,
            qos_paused="paused",
            qos_downscaled="limited",
            periodic_limits=PeriodicLimits(enabled=True),
        )
        counted = {
            name: Component(type=name, measured_unit="h", label=name, accounting_type="usage")
            for name in self.components
        }
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
        return SlurmBackend(
            settings,
            counted,
            runner=self.slurm.runner(),
            user_exists=lambda name: name in self.people,
            homes=homes,
        )

    def homeless_person(self, backend: Backend) -> str:
        assert isinstance(backend, SlurmBackend)
        return self.people[0]

    def test_the_home_of_somebody_who_was_let_out_is_looked_at_again(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        person = self.homeless_person(backend)
        home = tmp_path / f"home-{person}"
        home.mkdir()
        assert backend.missing_home_directories([person]) == frozenset()
        home.rmdir()
        list(backend.apply([RemoveMembers("a_run", (person,))]))
        assert backend.missing_home_directories([person]) == {person}

    def make_foreign_account(self, backend: Backend, name: str) -> None:
        assert isinstance(backend, SlurmBackend)
        add = ("sacctmgr", "-i", "add")
        self.slurm.run([*add, "account", f"name={name}", "parent=root", "GrpTRESMins=cpu=7"])
        self.slurm.run([*add, "user", "name=someone", f"account={name}"])

    def spend(self, backend: Backend, resource: str, user: str) -> Spent:
        assert isinstance(backend, SlurmBackend)
        start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 1, tzinfo=UTC)
        self.slurm.run_job(user, resource, {"cpu": 2, "mem": 300}, start, end)
        amounts = {"cpu": Fraction(120), "mem": Fraction(300 * 60)}
        return Spent(Period(start=start, end=end), amounts)

    def unreachable(self, backend: Backend) -> AbstractContextManager[None]:
        assert isinstance(backend, SlurmBackend)
        return self.slurm.outage(Outage.SLURMDBD_REFUSED)
