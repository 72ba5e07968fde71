from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Installation, SimulatedSite, a_simulated_site
from waldur_site_agent_sandbox import Project, Resource

OFTEN = {
    "WALDUR_SITE_AGENT_MEMBERSHIP_SYNC_PERIOD_MINUTES": "0.02",
    "WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.02",
}


class Account:
    """What a cluster said about an account at one moment."""

    def __init__(self, slurm: Any, name: str) -> None:
        found = (row.split("|") for row in slurm.associations(f"{name}|"))
        self.rows = {row[1]: row for row in found}
        self.jobs: list[str] = slurm.jobs(name)

    @property
    def users(self) -> set[str]:
        return set(self.rows) - {""}

    @property
    def qos(self) -> tuple[set[str], str]:
        """The QOS list and the default QOS that are set on the account."""
        row = self.rows[""]
        return set(row[3].split(",")) - {""}, row[4]

    def limit(self, user: str = "") -> str:
        return str(self.rows[user][5])


class SlurmSite:
    """A sandbox, a real cluster, and the agent between them."""

    def __init__(self, slurm: Any, testbed: SimulatedSite, directory: Path, prefix: str) -> None:
        self.slurm, self.testbed, self.prefix = slurm, testbed, prefix
        self.side = testbed.sandbox.customer
        self.ada, self.bob, self.cyd, self.svc, self.crs, self.oper = slurm.users[:6]
        settings = {
            "customer_prefix": f"{prefix}c_",
            "project_prefix": f"{prefix}p_",
            "allocation_prefix": f"{prefix}a_",
            "qos_default": "normal",
            "qos_downscaled": "limited",
            "qos_paused": "paused",
            "retry_seconds": 2,
        }
        self.site = Installation(
            testbed, directory, settings, {"SLURM_CONF": str(slurm.slurm_conf), **OFTEN}
        )
        self.site.write(membership_sync_backend="slurm")

    def open_projects(self, *slugs: str) -> list[tuple[Project, Resource]]:
        """Projects of ada and bob, each with a resource whose account is there."""
        people = {"ada": self.ada, "bob": self.bob}
        projects = [self.testbed.project(slug, **people) for slug in slugs]
        orders = [self.testbed.order(project, project.slug, cpu=10) for project in projects]
        done = self.site.run("-m", "order_process", "--once")
        assert done.code == 0, done.err
        return list(zip(projects, map(self.testbed.resource, orders), strict=True))

    def join(self, project: Project, name: str, username: str) -> None:
        self.side.add_member(project, self.testbed.person(name, username))

    def sync(self, *arguments: str, code: int = 0) -> str:
        """One cycle in a process of its own; returns what it printed."""
        self.testbed.sandbox.requests.clear()
        done = self.site.run("-m", "membership_sync", "--once", *arguments)
        assert done.code == code, done.err
        return done.out + done.err

    def account(self, resource: Resource) -> Account:
        return Account(self.slurm, self.side.current(resource).backend_id)

    def by_hand(self, *words: str) -> None:
        """What an administrator does, without the agent."""
        done = self.slurm.run("sacctmgr", "-i", *words)
        assert done.returncode == 0, done.stderr

    def set(self, resource: Resource, *words: str) -> None:
        self.by_hand("modify", "account", "where", f"name={resource.backend_id}", "set", *words)

    def may_submit(self, user: str, resource: Resource) -> bool:
        words = ("sbatch", "--test-only", "-A", resource.backend_id, "-t", "10", "-D", "/")
        return bool(self.slurm.run(*words, "--wrap", "true", user=user).returncode == 0)


@pytest.fixture(scope="module")  # gone before other modules list what there is
def long_qos(real_slurm: Any) -> Iterator[str]:
    """A QOS that the agent's settings do not name."""
    real_slurm.sacctmgr("add", "qos", "long")
    yield "long"
    real_slurm.sacctmgr("remove", "qos", "long")


@pytest.fixture(scope="module")
def shared_cluster(
    real_slurm: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmSite]:
    """One site for a module whose tests only look at what happened in it."""
    directory, prefix = tmp_path_factory.mktemp("slurm_site"), f"w{os.getpid() % 10000}"
    with a_simulated_site(directory / "lock") as testbed, testbed.served():
        yield SlurmSite(real_slurm, testbed, directory, prefix)
    real_slurm.clean(prefix)


@pytest.fixture
def slurm_site(real_slurm: Any, testbed: SimulatedSite, tmp_path: Path, prefix: str) -> SlurmSite:
    return SlurmSite(real_slurm, testbed, tmp_path, prefix)
