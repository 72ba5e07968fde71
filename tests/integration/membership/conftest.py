from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import House, Installation
from waldur_site_agent.sandbox import Project, Resource

SYNC_OFTEN = {"WALDUR_SITE_AGENT_MEMBERSHIP_SYNC_PERIOD_MINUTES": "0.02"}
ORDERS_OFTEN = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.02"}


class Town:
    """A sandbox, a real cluster, and the agent between them; ada and bob have a resource."""

    def __init__(self, site: Installation, slurm: Any, prefix: str) -> None:
        self.site, self.slurm, self.prefix = site, slurm, prefix
        self.house: House = site.house
        self.side = self.house.sandbox.customer
        self.ada, self.bob, self.cyd, self.svc, self.crs, self.stranger = slurm.users[:6]
        self.project: Project = self.house.project("climate", ada=self.ada, bob=self.bob)
        self.resource = self.created(self.project)
        self.account = self.resource.backend_id

    def created(self, project: Project, name: str = "run") -> Resource:
        order = self.house.order(project, name, cpu=10)
        done = self.site.run("-m", "order_process", "--once")
        assert done.code == 0, done.err
        return self.house.resource(order)

    def sync(self, *arguments: str, code: int = 0) -> str:
        """One cycle in a process of its own; what it logged."""
        self.house.sandbox.requests.clear()
        done = self.site.run("-m", "membership_sync", "--once", *arguments)
        assert done.code == code, done.err
        return done.err + done.out

    def join(self, name: str, username: str) -> None:
        self.side.add_member(self.project, self.house.person(name, username))

    def rows(self, account: str = "") -> dict[str, list[str]]:
        """The associations of an account by user; the account's own under ``""``."""
        found = (row.split("|") for row in self.slurm.associations(f"{account or self.account}|"))
        return {row[1]: row for row in found}

    def users(self, account: str = "") -> set[str]:
        return set(self.rows(account)) - {""}

    def qos(self, account: str = "") -> tuple[set[str], str]:
        row = self.rows(account)[""]
        return set(row[3].split(",")) - {""}, row[4]

    def limit(self, user: str = "") -> str:
        return self.rows()[user][5]

    def set(self, *words: str) -> None:
        """Do something to the account by hand."""
        where = ("where", f"name={self.account}", "set")
        self.slurm.sacctmgr("modify", "account", *where, *words)

    def may_submit(self, user: str) -> bool:
        words = ("sbatch", "--test-only", "-A", self.account, "-t", "10", "-D", "/")
        return bool(self.slurm.run(*words, "--wrap", "true", user=user).returncode == 0)

    @property
    def now(self) -> Resource:
        return self.side.current(self.resource)


@pytest.fixture(scope="session")
def long_qos(real_slurm: Any) -> Iterator[str]:
    """A QOS that the agent's settings do not name."""
    real_slurm.sacctmgr("add", "qos", "long")
    yield "long"
    real_slurm.sacctmgr("remove", "qos", "long")


@pytest.fixture
def town(real_slurm: Any, prefix: str, house: House, tmp_path: Path) -> Town:
    settings = {
        "customer_prefix": f"{prefix}c_",
        "project_prefix": f"{prefix}p_",
        "allocation_prefix": f"{prefix}a_",
        "qos_default": "normal",
        "qos_downscaled": "limited",
        "qos_paused": "paused",
    }
    variables = {"SLURM_CONF": str(real_slurm.slurm_conf)}
    site = Installation(house, tmp_path, settings, variables)
    site.write(membership_sync_backend="slurm")
    return Town(site, real_slurm, prefix)
