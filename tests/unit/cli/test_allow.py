"""``allow``: one refused plan is carried out by the next cycle, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import Installation
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE
from waldur_site_agent_sandbox import Project, Resource

PROGRAM = "waldur-site-agent"
PEOPLE = {f"person{number}": f"user{number}" for number in range(14)}
SYNC = ("run", "-m", "membership_sync", "--once")


class SharedAccount:
    """An account with fourteen members, of whom twelve have left."""

    def __init__(self, installation: Installation, journal: Path) -> None:
        self.installation, self.testbed = installation, installation.testbed
        self.journal = journal
        installation.write_offerings(
            {
                "membership_sync_backend": "slurm",
                "backend_settings": {
                    **installation.backend_settings,
                    "require_system_user": False,
                },
            },
            journal=str(journal),
        )
        self.project: Project = self.testbed.project(**PEOPLE)
        self.resource: Resource = self.testbed.settled(self.project)
        for name in list(PEOPLE)[:12]:
            self.leave(name)

    def leave(self, name: str) -> None:
        side = self.testbed.sandbox.customer
        (user,) = [u for u in side.world.users.values() if u.username == name]
        side.remove_member(self.project, user)

    def run(self, *words: str) -> Any:
        return self.installation.run(*words, command=PROGRAM)

    def members(self) -> int:
        return len(self.testbed.members_of(self.resource))

    def refused_digest(self) -> str:
        """What a cycle that is refused tells people to type."""
        done = self.run(*SYNC)
        assert done.code == 3, done.err
        return str(done.err).partition("waldur-site-agent allow ")[2].split(",")[0]

    def entries(self, action: str) -> list[Any]:
        lines = self.journal.read_text().splitlines()
        return [e for e in map(json.loads, lines) if e["action"] == action]


@pytest.fixture
def shared(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SharedAccount:
    locks = tmp_path / "run"
    locks.mkdir(mode=0o700)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(locks))
    return SharedAccount(installation, tmp_path / "journal.jsonl")


def test_a_refused_plan_is_carried_out_once_it_is_allowed(shared: SharedAccount) -> None:
    digest = shared.refused_digest()
    assert shared.members() == 14
    allowed = shared.run("allow", digest)
    assert allowed.code == 0, allowed.err
    assert "user0, user1" in allowed.out
    assert shared.run(*SYNC).code == 0
    assert shared.members() == 2


def test_who_allowed_what_and_when_it_was_used_is_in_the_journal(shared: SharedAccount) -> None:
    digest = shared.refused_digest()
    shared.run("allow", digest)
    shared.run(*SYNC)
    (given,), (used,) = shared.entries("allow"), shared.entries("use_allowance")
    assert given["digest"].startswith(digest)
    assert given["digest"] == used["digest"]
    assert given["by"] == used["by"] != ""
    assert len(given["changes"][shared.resource.backend_id]) == 12
    assert given["time"] <= used["time"]


def test_an_allowance_is_not_for_a_plan_with_one_person_more(shared: SharedAccount) -> None:
    shared.run("allow", shared.refused_digest())
    shared.leave("person13")
    done = shared.run(*SYNC)
    assert (done.code, shared.members()) == (3, 14)


def test_an_allowance_does_not_serve_the_same_removals_a_second_time(shared: SharedAccount) -> None:
    shared.run("allow", shared.refused_digest())
    shared.run(*SYNC)
    people = [f"user{number}" for number in range(12)]
    with shared.testbed.slurm.change() as cluster:
        account = cluster.accounts[shared.resource.backend_id]
        account.members |= dict.fromkeys(people, account.members["user13"])
    assert (shared.run(*SYNC).code, shared.members()) == (3, 14)


def test_an_allowance_that_was_taken_before_a_kill_is_spent(
    shared: SharedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.run("allow", shared.refused_digest())
    with monkeypatch.context() as patched:
        patched.setattr("waldur_site_agent.cycles.membership._change_backend", _killed)
        assert shared.run(*SYNC).code == 1
    assert (shared.run(*SYNC).code, shared.members()) == (3, 14)


def _killed(*_: object) -> None:
    raise RuntimeError("killed here")


def test_a_dry_run_shows_the_digest_and_uses_no_allowance(shared: SharedAccount) -> None:
    digest = shared.refused_digest()
    shared.run("allow", digest)
    done = shared.run("plan", "-m", "membership_sync", "--output", "json")
    (report,) = json.loads(done.out)
    assert report["digest"].startswith(digest)
    assert shared.run(*SYNC).code == 0


def test_an_unknown_digest_allows_nothing(shared: SharedAccount) -> None:
    shared.refused_digest()
    done = shared.run("allow", "f" * 16)
    assert (done.code, shared.entries("allow")) == (2, [])
    assert "no plan was refused with the digest" in done.err


def test_nothing_is_allowed_where_it_cannot_be_recorded(shared: SharedAccount) -> None:
    digest = shared.refused_digest()
    shared.journal.unlink()
    shared.journal.mkdir()
    done = shared.run("allow", digest)
    assert done.code == 2
    shared.journal.rmdir()
    assert (shared.run(*SYNC).code, shared.members()) == (3, 14)
