"""How many requests and commands a membership cycle may cost, on sites of a real size."""

from __future__ import annotations

import uuid
from itertools import islice

import pytest

from harness import SimulatedSite
from waldur_site_agent_sandbox import OfferingUser, Project, Resource, Role, User
from waldur_site_agent_sandbox.store import World
from waldur_site_agent_slurm.commands import NAMES_PER_COMMAND
from waldur_site_agent_slurm.simulator.state import SimAccount, SimMembership, SimUser


class Site:
    """A site as years have made it, written straight into both sides.

    Ordering that much through the API would take minutes.
    """

    def __init__(self, testbed: SimulatedSite, projects: int, people_each: int) -> None:
        self.testbed = testbed
        self.now = testbed.sandbox.clock.now()
        self.customer = testbed.sandbox.customer.add_customer("Uni", "uni")
        self.people = 0
        self.projects = [self._project(number) for number in range(projects)]
        self.teams = [self.hire(project, people_each) for project in self.projects]
        self.resources = [self._resource(project) for project in self.projects]
        self._fill_cluster()
        testbed.forget()

    @property
    def world(self) -> World:
        """The world of this moment, changed in place: copies of it would take too long."""
        return self.testbed.sandbox.customer.world

    def hire(self, project: Project, number: int) -> list[Role]:
        """Let new people with working accounts into a project."""
        return [self._role(project, self._person()) for _ in range(number)]

    def dismiss(self, roles: list[Role]) -> None:
        """End roles in a project."""
        for role in roles:
            self.world.remove(role)

    def _project(self, number: int) -> Project:
        made = Project(
            uuid=uuid.uuid4().hex,
            created=self.now,
            name=f"Project {number}",
            slug=f"p{number}",
            customer=self.customer.uuid,
        )
        self.world.put(made)
        return made

    def _person(self) -> User:
        self.people += 1
        name = f"u{self.people:05}"
        person = User(uuid=uuid.uuid4().hex, created=self.now, username=name, token=name)
        self.world.put(person)
        self.world.put(
            OfferingUser(
                uuid=uuid.uuid4().hex,
                created=self.now,
                modified=self.now,
                user=person.uuid,
                offering=self.testbed.sandbox.offering.uuid,
                username=name,
                state="OK",
            )
        )
        return person

    def _role(self, project: Project, person: User) -> Role:
        role = Role(
            uuid=uuid.uuid4().hex,
            created=self.now,
            user=person.uuid,
            name="PROJECT.MEMBER",
            scope_type="project",
            scope=project.uuid,
        )
        self.world.put(role)
        return role

    def _resource(self, project: Project) -> Resource:
        resource = Resource(
            uuid=uuid.uuid4().hex,
            created=self.now,
            modified=self.now,
            name=f"Run of {project.name}",
            slug=f"run-{project.slug}",
            offering=self.testbed.sandbox.offering.uuid,
            project=project.uuid,
            state="OK",
            limits={"cpu": 10},
            backend_id=f"a_run-{project.slug}",
            backend_metadata={"qos": "normal"},
            last_sync=self.now,
        )
        self.world.put(resource)
        return resource

    def _fill_cluster(self) -> None:
        with self.testbed.slurm.change() as state:
            root = state.accounts["root"]
            state.accounts["c_uni"] = SimAccount("c_uni", "uni", "c_uni", "root")
            for project, team, resource in zip(
                self.projects, self.teams, self.resources, strict=True
            ):
                name, own = f"p_{project.slug}", resource.backend_id
                state.accounts[name] = SimAccount(name, project.slug, name, "c_uni")
                names = [self.world.users[role.user].username for role in team]
                members = {user: SimMembership() for user in names}
                limits = {"cpu": 600000}
                account = SimAccount(own, "run", name, name, limits=limits, members=members)
                state.accounts[own] = account
                for user in names:
                    state.users[user] = SimUser(user, "root")
                    root.members[user] = SimMembership(max_submit=0)

    def members(self, resource: Resource) -> int:
        return len(self.testbed.members_of(resource))


def cost_with_start(testbed: SimulatedSite) -> int:
    """Requests of a start and a cycle."""
    with testbed.agent() as site:
        site.waldur.whoami()
    report = testbed.sync()
    assert not report.failed, report.failures
    assert report.resources == len(testbed.sandbox.customer.world.resources)
    return testbed.sandbox.requests.count()


def commands_of(testbed: SimulatedSite, *words: str) -> list[tuple[str, ...]]:
    return [c for c in testbed.slurm.history if c[: len(words)] == words]


@pytest.mark.guarantee("A second cycle with no news writes nothing")
def test_ten_thousand_unchanged_memberships_cost_eighty_requests_and_two_commands(
    testbed: SimulatedSite,
) -> None:
    Site(testbed, projects=500, people_each=20)
    assert cost_with_start(testbed) <= 80
    assert testbed.sandbox.requests.writes() == []
    assert sum(testbed.slurm.commands_run.values()) <= 2
    assert testbed.writing_commands == 0


@pytest.mark.parametrize(("resources", "people"), [(1, 1), (10, 3), (15, 20)])
def test_a_small_site_costs_one_request_for_each_list(
    testbed: SimulatedSite, resources: int, people: int
) -> None:
    Site(testbed, projects=resources, people_each=people)
    assert cost_with_start(testbed) <= 9
    assert testbed.sandbox.requests.writes() == []
    assert sum(testbed.slurm.commands_run.values()) == 1


def test_two_thousand_members_of_one_resource_come_in_few_commands(testbed: SimulatedSite) -> None:
    site = Site(testbed, projects=2, people_each=1)
    site.hire(site.projects[0], 2000)
    report = testbed.sync()
    assert not report.failed, report.failures
    assert [site.members(resource) for resource in site.resources] == [2001, 1]
    portions = 2000 // NAMES_PER_COMMAND
    additions = commands_of(testbed, "sacctmgr", "-i", "add", "user")
    assert len(additions) == testbed.writing_commands == 2 * portions
    testbed.forget()
    testbed.sync()
    assert testbed.sandbox.requests.writes() == []
    assert testbed.writing_commands == 0


def test_two_thousand_members_leave_in_few_commands_once_that_is_allowed(
    testbed: SimulatedSite,
) -> None:
    site = Site(testbed, projects=2, people_each=2000)
    site.dismiss(site.teams[0])
    assert testbed.sync().refused_reason
    assert (site.members(site.resources[0]), testbed.writing_commands) == (2000, 0)
    report = testbed.with_(removals_allowed=True).sync()
    assert not report.failed, report.failures
    assert [site.members(resource) for resource in site.resources] == [0, 2000]
    assert testbed.writing_commands == 2000 // NAMES_PER_COMMAND


@pytest.mark.guarantee("Requests and processes per cycle are a constant plus the number of changes")
def test_ten_percent_of_churn_costs_one_command_per_changed_account_and_direction(
    testbed: SimulatedSite,
) -> None:
    site = Site(testbed, projects=100, people_each=20)
    quiet = cost_with_start(testbed)
    changed = 10
    for project, team in islice(zip(site.projects, site.teams, strict=True), changed):
        site.dismiss(team[:10])
        site.hire(project, 10)
    testbed.forget()
    report = testbed.sync()
    assert not report.failed, report.failures
    assert [site.members(resource) for resource in site.resources] == [20] * 100
    removals = commands_of(testbed, "sacctmgr", "-i", "remove", "user")
    additions = commands_of(testbed, "sacctmgr", "-i", "add", "user")
    introductions = [c for c in additions if "account=root" in c]
    assert len(removals) == changed
    assert len(additions) == changed + len(introductions)
    assert len(introductions) == 1
    assert testbed.writing_commands == len(removals) + len(additions)
    readings = 2 * changed  # of each resource and team that somebody leaves, by itself
    assert testbed.sandbox.requests.count() <= quiet + readings
    assert testbed.sandbox.requests.writes() == []
