"""Both sides and the one clock of a simulation, and what is known about them from outside."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

from waldur_site_agent_sandbox import Project, Resource, Sandbox, User
from waldur_site_agent_sandbox.store import Clock
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.simulator.state import SimAccount, SimMembership, SimUser

VERSIONS = ("8.1.3", "8.1.3", "8.0.7", "7.9.9")
FACTORS = {"cpu": 60000, "mem": 61440, "gres/gpu": 60}
"""Backend units of one measured unit."""
PREPAID, PREPAID_FACTOR = "node", 60
"""A component that is paid in advance, where one is sold, and its backend units."""
_MOMENT = timedelta(seconds=60)
"""How old a list is at most that is a moment old."""


class FakeTime:
    """The time of everybody, which passes only where somebody waits."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.cluster: SimulatedSlurm | None = None

    def now(self) -> datetime:
        return self._now

    def seconds(self) -> float:
        return self._now.timestamp()

    def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        if self.cluster is not None:
            self.cluster.state.now = int(self._now.timestamp())


@dataclass
class Qos:
    """What the site has set for an account, beside what the agent does."""

    names: list[str] = field(default_factory=list)
    default: str = ""


class World:
    """A sandbox and a cluster, alike for the same seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        rng = Random(f"world {seed}")
        start = datetime(2027, rng.randint(1, 12), rng.choice((1, 3, 14, 26, 28)), tzinfo=UTC)
        self.time = FakeTime(start + timedelta(minutes=rng.randint(0, 1439)))
        uuids = Random(f"uuids {seed}")
        self.sandbox = Sandbox(
            rng.choice(VERSIONS),
            clock=Clock(self.time.now),
            uuids=lambda: UUID(int=uuids.getrandbits(128), version=4),
        )
        # by the seed itself, so that a seed keeps its other choices
        self.slurm = SimulatedSlurm(version="24.11" if seed % 2 else "22.05")
        self.time.cluster = self.slurm
        self.time.sleep(0)
        self.has_budgets = Random(f"budgets {seed}").random() < 0.4
        """Whether the agent sets budgets of periodic policies, if there are any."""
        if self.has_budgets:
            self.slurm.state.configuration["PriorityUsageResetPeriod"] = "NONE"
        self.lock_file = directory / "writer.lock"
        self.names_by_agent = rng.random() < 0.4
        """Whether the agent gives people their usernames."""
        self.tight = rng.random() < 0.3
        """Whether few removals are too many."""
        self.removals_allowed = False
        self.removes_strangers = rng.random() < 0.2
        self.unknown_to_the_system: set[str] = set()
        self.site_qos: dict[str, Qos] = {}
        self.strangers: set[tuple[str, str]] = set()
        """Who was put into an account by an administrator: account and name."""
        self.owners: dict[int, str] = {}
        """To which resource the account of a job belonged when it began."""
        self.shown_when_done: dict[str, str] = {}
        """By order, the end date of its resource when the order was done."""
        self.lost_names: set[str] = set()
        """Resources that could not be restored, because another one has their name by now."""
        self.withdrawn: set[str] = set()
        """Resources of which an order was deleted by the customer."""
        self._changes: list[datetime] = []
        self._watch_changes()
        self.projects = self._people_and_projects(rng)
        sold = Random(f"what is sold {seed}")
        self.soft_delete = sold.random() < 0.4
        """Whether accounts of terminated resources stay, empty."""
        self.sells_prepaid = sold.random() < 0.5 and not self.has_budgets
        if self.sells_prepaid:
            self.sandbox.customer.add_component(PREPAID, "one", "node-hours", is_prepaid=True)
        self.others = self._accounts_of_others()

    @property
    def side(self) -> Sandbox:
        return self.sandbox

    @property
    def resources(self) -> list[Resource]:
        """Oldest first."""
        return sorted(self.sandbox.customer.world.resources.values(), key=lambda r: r.created)

    @property
    def people(self) -> list[User]:
        """Everybody but the agent."""
        users = self.sandbox.customer.world.users.values()
        return [user for user in users if user.uuid != self.sandbox.agent.uuid]

    def recent_changes(self) -> int:
        """How many changes of Waldur's a list that is a moment old may lack."""
        since = self.time.now() - _MOMENT
        return sum(moment >= since for moment in self._changes)

    def username_of(self, person: User) -> str:
        """What the site calls a person."""
        return f"{person.username}01"

    def _watch_changes(self) -> None:
        store = self.sandbox._store
        notice = store.after_commit

        def noticed(before: object, tx: object) -> None:
            self._changes.append(self.time.now())
            notice(before, tx)  # type: ignore[arg-type]  # passed on as it came

        store.after_commit = noticed

    def _people_and_projects(self, rng: Random) -> list[Project]:
        side = self.sandbox.customer
        policy = "service_provider" if self.names_by_agent else "waldur_username"
        options = {
            **self.sandbox.offering.plugin_options,
            "username_generation_policy": policy,
            "offering_user_auto_deletion": rng.random() < 0.4,
        }
        if rng.random() < 0.3:
            options["account_name_generation_policy"] = "project_slug"
        side.edit(self.sandbox.offering, plugin_options=options)
        side.add_component("gres/gpu", "usage", "GPU-hours", unit_factor=60)
        self.customers = [
            side.add_customer(name, slug) for name, slug in (("University", "uni"), ("Lab", "lab"))
        ]
        for name in ("ada", "bob", "cyd", "dan", "eve", "fay"):
            person = side.add_user(name, name.title())
            if not self.names_by_agent:
                side.set_account(person, self.username_of(person))
        projects = [side.add_project(n.title(), "uni", n) for n in ("climate", "plasma")]
        for project in projects:
            for person in rng.sample(self.people, rng.randint(1, 4)):
                side.add_member(project, person)
        return projects

    def _accounts_of_others(self) -> dict[str, SimAccount]:
        """Accounts that are none of the agent's, one of them with a person whom Waldur knows."""
        with self.slurm.change() as state:
            state.qos.append("long")
            for name, parent, people in (
                ("physics", "root", ("prof01", "phd02", "ada01")),
                ("physics_lab", "physics", ("phd02",)),
            ):
                account = SimAccount(name, "Physics", "physics", parent, limits={"cpu": 777})
                account.qos, account.default_qos = ["normal", "long"], "long"
                for person in people:
                    account.members[person] = SimMembership(limits={"cpu": 11})
                    state.users.setdefault(person, SimUser(person, name))
                state.accounts[name] = account
            return {name: deepcopy(state.accounts[name]) for name in ("physics", "physics_lab")}
