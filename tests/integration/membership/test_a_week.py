"""Five cycles of membership_sync as processes of their own, on a real Slurm with real jobs.

Cycles on a real cluster take seconds, so everything happens in the same five, each thing in an
account of its own; the tests then look at how the accounts stood after each cycle.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import Account, SlurmSite
    from waldur_site_agent_sandbox import Project, Resource

pytestmark = pytest.mark.slurm

SLUGS = ("club", "ice", "gate", "quota", "robots")


class Week:
    """What happens, day by day, and how everything stood after each day's cycle."""

    def __init__(self, slurm_site: SlurmSite, long_qos: str, newcomer: str) -> None:
        self.slurm_site, self.side, self.long_qos = slurm_site, slurm_site.side, long_qos
        self.newcomer = newcomer
        places = dict(zip(SLUGS, slurm_site.open_projects(*SLUGS), strict=True))
        self.projects: dict[str, Project] = {slug: place[0] for slug, place in places.items()}
        self.resources: dict[str, Resource] = {slug: place[1] for slug, place in places.items()}
        self.after: list[dict[str, Account]] = []
        self.qos_told: list[object] = []
        self.default_of_bob: list[str] = []
        self.may_submit: list[set[str]] = []
        self.printed: list[str] = []
        self.cluster: list[list[str]] = []

    def cycle(self) -> None:
        self.printed.append(self.slurm_site.sync())
        found = {slug: self.slurm_site.account(each) for slug, each in self.resources.items()}
        self.after.append(found)
        metadata = self.side.current(self.resources["ice"]).backend_metadata
        self.qos_told.append(metadata.get("qos"))
        self.default_of_bob.append(self.slurm_site.slurm.default_account(self.slurm_site.bob))
        people, club = (
            (self.slurm_site.ada, self.slurm_site.bob, self.slurm_site.cyd),
            self.resources["club"],
        )
        self.may_submit.append({user for user in people if self.slurm_site.may_submit(user, club)})
        self.cluster.append(self.slurm_site.slurm.associations())

    def monday(self) -> None:
        """The site gives an account its own QOS list; limits and accounts of projects are new."""
        slurm_site, side = self.slurm_site, self.side
        slurm_site.set(
            self.resources["ice"], f"qos=normal,{self.long_qos}", f"DefaultQOS={self.long_qos}"
        )
        side.set_user_limit(self.resources["quota"], "ada", "cpu", 2)
        side.set_user_limit(self.resources["quota"], "bob", "mem", 1)
        self.service = side.add_service_account(self.projects["robots"], slurm_site.svc)
        side.add_course_account(self.projects["robots"], slurm_site.crs)

    def jobs(self) -> None:
        """Bob has one that runs and one that waits, in what he made his default account."""
        slurm_site, club = self.slurm_site, self.resources["club"].backend_id
        slurm_site.by_hand(
            "modify", "user", "where", f"name={slurm_site.bob}", "set", f"DefaultAccount={club}"
        )
        self.job_of_ada = slurm_site.slurm.submit_job(slurm_site.ada, club)
        slurm_site.slurm.submit_job(slurm_site.bob, club)
        slurm_site.slurm.submit(slurm_site.bob, club, "--begin=now+1hour", "--wrap", "true")
        assert len(slurm_site.slurm.jobs(club)) == 3
        slurm_site.slurm.submit_job(slurm_site.ada, self.resources["gate"].backend_id)
        robots = self.resources["robots"].backend_id
        slurm_site.slurm.submit_job(slurm_site.svc, robots)
        self.job_of_course = slurm_site.slurm.submit_job(slurm_site.crs, robots)

    def tuesday(self) -> None:
        """Bob leaves, cyd and somebody without a system account join; pause, restrict, close."""
        slurm_site, side = self.slurm_site, self.side
        side.remove_member(self.projects["club"], "bob")
        slurm_site.join(self.projects["club"], "cyd", slurm_site.cyd)
        slurm_site.join(self.projects["club"], "eve", self.newcomer)
        side.set_flags(self.resources["ice"], paused=True, downscaled=True)
        side.set_flags(self.resources["gate"], restrict_member_access=True)
        side.set_user_limit(self.resources["quota"], "ada", "cpu", 3)
        side.clear_user_limit(self.resources["quota"], "bob", "mem")
        side.set_project_account_state(self.service, "Closed")

    def wednesday(self) -> None:
        """Bob comes back, the pause becomes a downscaling, the gate opens."""
        self.slurm_site.join(self.projects["club"], "bob", self.slurm_site.bob)
        self.side.set_flags(self.resources["ice"], paused=False)
        self.side.set_flags(self.resources["gate"], restrict_member_access=False)

    def thursday(self, make_user: Callable[[], None]) -> None:
        """Everything is normal again, and the system knows the newcomer."""
        self.side.set_flags(self.resources["ice"], downscaled=False)
        make_user()


@pytest.fixture(scope="module")
def week(long_qos: str, shared_cluster: SlurmSite) -> Iterator[Week]:
    name, homes = f"wsaweek{os.getpid()}", Path(shared_cluster.slurm.directory) / "week"

    def make_user() -> None:
        homes.mkdir(exist_ok=True)
        words = ("-r", "-M", "-N", "-d", str(homes / name), name)
        subprocess.run(["/usr/sbin/useradd", *words], check=True)

    week = Week(shared_cluster, long_qos, name)
    try:
        week.monday()
        week.cycle()
        week.jobs()
        week.tuesday()
        week.cycle()
        week.wednesday()
        week.cycle()
        week.thursday(make_user)
        week.cycle()
        week.cycle()
        yield week
    finally:
        shared_cluster.slurm.sacctmgr("remove", "user", "where", f"name={name}")
        subprocess.run(["/usr/sbin/userdel", name], capture_output=True, check=False)
        shutil.rmtree(homes, ignore_errors=True)


@pytest.mark.guarantee("Nobody has access that Waldur does not grant, after one quiet cycle")
def test_a_member_leaves_with_jobs_and_comes_back(week: Week) -> None:
    ada, bob, cyd = week.slurm_site.ada, week.slurm_site.bob, week.slurm_site.cyd
    users = [day["club"].users for day in week.after]
    assert users[:3] == [{ada, bob}, {ada, cyd}, {ada, bob, cyd}]
    assert week.may_submit[:3] == [{ada, bob}, {ada, cyd}, {ada, bob, cyd}]
    assert [day["club"].jobs for day in week.after[1:]] == [[week.job_of_ada]] * 4
    assert week.default_of_bob == ["root"] * 5


def test_a_sites_own_qos_list_survives_pausing_and_downscaling(week: Week) -> None:
    own = ({"normal", week.long_qos}, week.long_qos)
    restricted = [({"paused"}, "paused"), ({"limited"}, "limited")]
    assert [day["ice"].qos for day in week.after] == [own, *restricted, own, own]
    told = [set(str(qos).split(",")) for qos in week.qos_told]
    assert told == [own[0], {"paused"}, {"limited"}, own[0], own[0]]


def test_restricting_ends_all_access_and_lifting_it_gives_it_back(week: Week) -> None:
    everybody = {week.slurm_site.ada, week.slurm_site.bob}
    users = [day["gate"].users for day in week.after]
    assert users == [everybody, set(), everybody, everybody, everybody]
    assert week.after[1]["gate"].jobs == []


def test_limits_of_members_are_set_changed_and_withdrawn(week: Week) -> None:
    ada, bob = week.slurm_site.ada, week.slurm_site.bob
    limits = [(day["quota"].limit(ada), day["quota"].limit(bob)) for day in week.after]
    assert limits == [("cpu=120000", "mem=60G"), *[("cpu=180000", "")] * 4]
    assert {day["quota"].limit() for day in week.after} == {"cpu=600000"}


def test_a_closed_service_account_goes_and_the_jobs_of_a_healthy_account_go_on(week: Week) -> None:
    people = {week.slurm_site.ada, week.slurm_site.bob, week.slurm_site.crs}
    users = [day["robots"].users for day in week.after]
    assert users == [people | {week.slurm_site.svc}, *[people] * 4]
    assert [day["robots"].jobs for day in week.after[1:]] == [[week.job_of_course]] * 4


def test_a_person_whom_the_system_does_not_know_waits_and_then_gets_a_home(week: Week) -> None:
    assert [week.newcomer in day["club"].users for day in week.after] == [False] * 3 + [True] * 2
    waits = ["members not added yet: unknown to the backend" in text for text in week.printed]
    assert waits == [False, True, True, False, False]
    home = Path(week.slurm_site.slurm.directory) / "week" / week.newcomer
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_day_without_news_changes_nothing_on_either_side(week: Week) -> None:
    assert week.cluster[4] == week.cluster[3]
    assert week.slurm_site.testbed.sandbox.requests.writes() == []
