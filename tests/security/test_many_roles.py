"""Ten thousand roles: one project with ten thousand people, one person in ten thousand projects.

Customers give roles as they like, also in projects that have bought nothing. The counts are what
an agent does for them; nobody is removed whatever is missing of the lists.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.generated import GeneratedSlurm, GeneratedWaldur, Row
from bench.passes import site_of

from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent_slurm.simulator import SimulatedSlurm

MANY = 10_000
PAGE = 300
PAGES = -(-MANY // PAGE)
USUAL_REQUESTS = 10
LONGEST_COMMAND = 4096


@dataclass
class CrowdedWaldur(GeneratedWaldur):
    """Role number ``n`` is of person ``person(n)`` in project ``project(n)``."""

    people: int = 1
    persons: range = range(1)
    projects: range = range(1)
    roles: int = MANY
    claimed: int = MANY
    """How many roles the server says that there are."""

    def _list(self, name: str, query: httpx.QueryParams) -> tuple[int, Row]:
        if name == "marketplace-offering-users":
            return self.people, super()._list(name, query)[1]
        if name == "project_permissions":
            return self.roles, self._role
        return super()._list(name, query)

    def _role(self, n: int) -> str:
        person, project = self.persons[n % len(self.persons)], self.projects[n % len(self.projects)]
        role = {
            "expiration_time": None,
            "project_uuid": f"20{project:030x}",
            "role_name": f"PROJECT.ROLE{n}",
            "user_uuid": f"40{person:030x}",
            "user_username": f"user{person}",
        }
        return json.dumps(role)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.url.path.endswith("project_permissions/") and response.is_success:
            response.headers["x-result-count"] = str(self.claimed)
        return response


@dataclass
class ListedSlurm(GeneratedSlurm):
    """A cluster with accounts that have these members."""

    members: Sequence[tuple[int, int]] = ()
    """Numbers of the account and the user."""

    def _accounts(self) -> Iterator[str]:
        yield "hpc|c_uni|root|||||||c_uni"
        for n in range(self.resources):
            yield f"hpc|p_p{n}|c_uni|||||||p_p{n}"
            yield f"hpc|a_run-{n}|p_p{n}|||||cpu=600000||p_p{n}"
        for account, user in self.members:
            yield f"hpc|a_run-{account}||u{user}||||||p_p{account}"
        yield "hpc|root||||normal||||root"
        for user in sorted({user for _, user in self.members}):
            yield f"hpc|root||u{user}||||||root"


@dataclass
class CountedSlurm(GeneratedSlurm):
    """A simulated cluster, whose commands are counted."""

    cluster: SimulatedSlurm = field(default_factory=SimulatedSlurm)
    longest: int = 0

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        self.commands["write" if "-i" in argv else "read"] += 1
        self.longest = max(self.longest, *map(len, argv))
        return self.cluster.runner().run(argv, timeout)

    def stream(
        self, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
    ) -> CommandResult:
        result = self.run(argv, timeout)
        read(iter(result.stdout.splitlines()))
        return replace(result, stdout="")


def a_project_of_many() -> CrowdedWaldur:
    return CrowdedWaldur(1, people=MANY, persons=range(MANY))


def synced(waldur: CrowdedWaldur, slurm: GeneratedSlurm) -> tuple[MembershipReport, Counter[str]]:
    """A pass, and what it wrote."""
    with site_of(waldur, slurm, makes_homes=False) as site:
        report = sync_membership(site)
    return report, Counter({k: n for k, n in waldur.requests.items() if not k.startswith("GET ")})


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize(
    ("waldur", "slurm"),
    [
        (a_project_of_many(), ListedSlurm(1, members=[(0, user) for user in range(MANY)])),
        (
            CrowdedWaldur(MANY, projects=range(MANY)),
            ListedSlurm(MANY, members=[(account, 0) for account in range(MANY)]),
        ),
        (CrowdedWaldur(1, projects=range(MANY)), ListedSlurm(1, members=[(0, 0)])),
        (CrowdedWaldur(1), ListedSlurm(1, members=[(0, 0)])),
    ],
    ids=["one project", "one person", "projects without resources", "one person in one project"],
)
def test_ten_thousand_roles_cost_their_pages_and_change_nothing(
    waldur: CrowdedWaldur, slurm: ListedSlurm
) -> None:
    report, written = synced(waldur, slurm)
    assert (report.failed, written, slurm.commands["sacctmgr write"]) == (0, Counter(), 0)
    lists = sum(count > PAGE for count in (waldur.people, waldur.roles, waldur.resources))
    assert sum(waldur.requests.values()) <= USUAL_REQUESTS + lists * PAGES
    assert sum(slurm.commands.values()) <= 4


def test_ten_thousand_newcomers_are_added_by_commands_of_a_bounded_length() -> None:
    slurm = CountedSlurm(1)
    for account, parent in (("c_uni", "root"), ("p_p0", "c_uni"), ("a_run-0", "p_p0")):
        words = ["sacctmgr", "-i", "add", "account", f"name={account}", f"parent={parent}"]
        assert slurm.cluster.run(words)[0] == 0
    waldur = a_project_of_many()
    report, _ = synced(waldur, slurm)
    assert report.failed == 0
    assert len(slurm.cluster.state.accounts["a_run-0"].members) == MANY
    assert slurm.longest < LONGEST_COMMAND
    assert slurm.commands["write"] < MANY // 50
    assert slurm.commands["read"] < MANY // 50
    waldur.requests.clear()
    slurm.commands.clear()
    synced(waldur, slurm)
    assert slurm.commands["write"] == 0


@pytest.mark.guarantee("Nobody loses access because a read failed")
@pytest.mark.parametrize(("roles", "claimed"), [(MANY - 1, MANY), (PAGE, MANY), (0, MANY), (0, 0)])
def test_nobody_of_ten_thousand_is_removed_when_roles_are_missing(roles: int, claimed: int) -> None:
    waldur = a_project_of_many()
    waldur.roles, waldur.claimed = roles, claimed
    slurm = ListedSlurm(1, members=[(0, user) for user in range(MANY)])
    synced(waldur, slurm)
    assert slurm.commands["sacctmgr write"] == 0
