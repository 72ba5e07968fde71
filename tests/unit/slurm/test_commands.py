"""Given these facts and actions, exactly these commands."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    Action,
    AddMembers,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent.backends.actions import Access
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import PollTimeout
from waldur_site_agent_slurm.facts import Account, Cluster
from waldur_site_agent_slurm.members import new_defaults
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import Outage, SimulatedSlurm

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = ResourceRequest(
    resource_name="Res", project_slug="p", project_name="Proj",
    customer_slug="c", customer_name="Cust",
)  # fmt: skip


@pytest.fixture
def slurm() -> SimulatedSlurm:
    return SimulatedSlurm()


@pytest.fixture
def backend(slurm: SimulatedSlurm, tmp_path: Path) -> SlurmBackend:
    settings = SlurmSettings(lock_file=tmp_path / "lock", require_system_user=False)
    instant = PollTimeout(
        seconds=20, pause=0.1, sleep=lambda _: None, clock=iter(range(9999)).__next__
    )
    return SlurmBackend(settings, {}, runner=slurm.runner(), patience=instant)


def create(backend: SlurmBackend, slug: str = "a") -> CreateResource:
    return CreateResource(backend.place(REQUEST, slug), {"cpu": Decimal(60)})


def apply(backend: SlurmBackend, *actions: Action) -> list[Outcome]:
    return list(backend.apply(actions))


def written(slurm: SimulatedSlurm) -> list[str]:
    """The writing commands since the last look."""
    lines = [" ".join(argv) for argv in slurm.history if argv[0] != "sacctmgr" or "-i" in argv]
    slurm.history.clear()
    return lines


def test_a_resource_with_members_takes_one_command_for_each_account_and_step(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, create(backend), AddMembers("a", ("ada", "bob")))
    add = "sacctmgr -i add account"
    assert written(slurm) == [
        f"{add} name=c parent=root description=Cust organization=c",
        f"{add} name=p parent=c description=Proj organization=p",
        f"{add} name=a parent=p description=Res organization=p GrpTRESMins=cpu=60",
        "sacctmgr -i add user name=ada,bob account=root DefaultAccount=root MaxSubmitJobs=0",
        "sacctmgr -i add user name=ada,bob account=a",
    ]


def test_accounts_with_the_same_new_limits_share_a_command(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, *(create(backend, slug) for slug in ("a", "b", "d")))
    written(slurm)
    changes = {"cpu": None, "mem": Decimal(5)}
    apply(backend, *(SetLimits(name, changes) for name in ("a", "b", "d")))
    command = "sacctmgr -i modify account where name=a,b,d set GrpTRESMins=cpu=-1,mem=5"
    assert written(slurm) == [command]


def test_members_leave_by_one_command_after_their_jobs_alone_were_cancelled(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, create(backend), AddMembers("a", ("ada", "bob", "cyd")))
    jobs = [slurm.submit_job(user, "a") for user in ("ada", "bob", "cyd")]
    slurm.submit_job("ada", "other")
    written(slurm)
    apply(backend, RemoveMembers("a", ("ada", "bob")))
    squeue = "squeue -a -h -A a -o %A|%a|%u"
    assert written(slurm) == [
        squeue,
        f"scancel {jobs[0]} {jobs[1]}",
        squeue,
        "sacctmgr -i remove user where name=ada,bob account=a",
    ]
    assert len(slurm.state.jobs) == 2


def test_a_job_in_a_hidden_partition_does_not_keep_a_member_who_left(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, create(backend), AddMembers("a", ("ada",)))
    job = slurm.submit_job("ada", "a")
    with slurm.change() as state:
        state.jobs[job].hidden = True
    assert [o.result for o in apply(backend, RemoveMembers("a", ("ada",)))] == [Result.DONE]
    assert not slurm.state.jobs


def test_a_removal_is_tried_again_while_slurmdbd_has_not_heard_of_the_end_of_jobs(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, create(backend), AddMembers("a", ("ada",)))
    with slurm.change() as state:
        state.late_ends = 1
    assert [o.result for o in apply(backend, RemoveMembers("a", ("ada",)))] == [Result.DONE]


def test_a_job_that_does_not_end_keeps_its_member_and_nobody_else(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, create(backend), create(backend, "b"))
    apply(backend, AddMembers("a", ("ada",)), AddMembers("b", ("bob",)))
    slurm.submit_job("ada", "a", survives_cancel=True)
    stuck, gone = apply(backend, RemoveMembers("a", ("ada",)), RemoveMembers("b", ("bob",)))
    assert isinstance(stuck.error, TemporaryError)
    assert gone.result is Result.DONE
    assert "ada" in slurm.state.accounts["a"].members


def test_nothing_to_do_starts_no_writing_command(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    actions = (create(backend), AddMembers("a", ("ada",)))
    apply(backend, *actions)
    written(slurm)
    again = apply(backend, *actions, RemoveMembers("a", ("bob",)), DeleteResource("none"))
    assert {Result.UNCHANGED} == {outcome.result for outcome in again}
    assert written(slurm) == []


@pytest.mark.parametrize(
    ("outage", "words"),
    [
        (Outage.SLURMDBD_REFUSED, "slurmdbd cannot be reached.*start slurmdbd"),
        (Outage.SLURMDBD_HUNG, "gave no answer within"),
        (Outage.MARIADB_AWAY, "no connection to its database"),
        (Outage.NO_PERMISSION, "may not change.*adminlevel=operator"),
    ],
)
def test_trouble_with_the_database_is_told_apart_and_ends_the_call_at_once(
    backend: SlurmBackend, slurm: SimulatedSlurm, outage: Outage, words: str
) -> None:
    apply(backend, create(backend))
    actions = [SetLimits("a", {"cpu": Decimal(n)}) for n in range(30)]
    slurm.history.clear()
    with slurm.outage(outage):
        outcomes = apply(backend, *actions)
    for outcome in outcomes:
        with pytest.raises(TemporaryError, match=words):
            raise outcome.error or AssertionError(outcome)
    assert len(slurm.history) <= 2


@pytest.mark.parametrize("commands_before", range(9))
def test_an_outage_after_any_command_loses_nothing_and_the_next_call_finishes(
    backend: SlurmBackend, slurm: SimulatedSlurm, commands_before: int
) -> None:
    actions = (create(backend), AddMembers("a", ("ada", "bob")))
    with slurm.outage(Outage.SLURMDBD_REFUSED, after_commands=commands_before):
        first = apply(backend, *actions)
    assert all(o.error is None or isinstance(o.error, TemporaryError) for o in first)
    assert all(outcome.error is None for outcome in apply(backend, *actions))
    assert set(slurm.state.accounts["a"].members) == {"ada", "bob"}
    assert slurm.state.accounts["a"].limits == {"cpu": 60}


def test_without_slurmctld_nobody_is_removed_but_limits_are_set(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, create(backend), AddMembers("a", ("ada",)))
    with slurm.outage(Outage.SLURMCTLD_AWAY):
        removal, limits = apply(
            backend, RemoveMembers("a", ("ada",)), SetLimits("a", {"cpu": Decimal(7)})
        )
    assert "slurmctld cannot be reached" in str(removal.error)
    assert limits.result is Result.DONE
    assert "ada" in slurm.state.accounts["a"].members


def test_a_foreign_container_is_refused_with_its_prefix_setting(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    slurm.run(["sacctmgr", "-i", "add", "account", "name=p", "organization=physics"])
    (outcome,) = apply(backend, create(backend))
    with pytest.raises(PermanentError, match=r'project account "p".*"physics".*project_prefix'):
        raise outcome.error or AssertionError
    assert "c" not in slurm.state.accounts


def test_a_container_of_ours_that_was_moved_is_used_where_it_is(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    add = ["sacctmgr", "-i", "add", "account"]
    slurm.run([*add, "name=faculty", "organization=university"])
    slurm.run([*add, "name=p", "parent=faculty", "organization=p"])
    assert [outcome.result for outcome in apply(backend, create(backend))] == [Result.DONE]
    assert slurm.state.accounts["p"].parent == "faculty"


def test_an_unsupported_action_fails_and_the_others_are_carried_out(
    slurm: SimulatedSlurm, tmp_path: Path
) -> None:
    settings = SlurmSettings(
        lock_file=tmp_path / "lock", enable_user_homedir_account_creation=False
    )
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    refused, made = apply(backend, CreateHomeDirectories(("ada",)), create(backend))
    assert isinstance(refused.error, PermanentError)
    assert made.result is Result.DONE


def test_access_and_metadata_come_from_the_qos(tmp_path: Path, slurm: SimulatedSlurm) -> None:
    settings = SlurmSettings(
        qos_paused="paused", qos_downscaled="limited", lock_file=tmp_path / "lock"
    )
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    apply(backend, create(backend), create(backend, "b"))
    for name, qos in (("a", "paused"), ("p", "limited")):
        slurm.run(
            ["sacctmgr", "-i", "modify", "account", "where", f"name={name}", "set", f"qos={qos}"]
        )
    found = backend.observe().resources
    assert (found["a"].access, dict(found["a"].metadata)) == (Access.PAUSED, {"qos": "paused"})
    assert (found["b"].access, dict(found["b"].metadata)) == (Access.DOWNSCALED, {"qos": "limited"})
    assert found["c"].access is Access.NORMAL


def test_the_new_default_account_is_the_preferred_one_or_the_first_kept() -> None:
    accounts = {
        name: Account(name, "root", users=users)
        for name, users in {
            "a": frozenset({"ada", "bob", "cyd"}),
            "b": frozenset({"ada", "bob"}),
            "z": frozenset({"ada"}),
        }.items()
    }
    cluster = Cluster("c", accounts)
    defaults = dict.fromkeys(("ada", "bob", "cyd"), "a")
    leaving = {"a": frozenset({"ada", "bob", "cyd"})}
    assert new_defaults(cluster, leaving, defaults, "z") == {"z": {"ada"}, "b": {"bob"}}


@pytest.mark.guarantee("A name from outside never becomes an option, a list or a second word")
@pytest.mark.parametrize(
    "build",
    [
        lambda: commands.remove_users((), ("a",), None),
        lambda: commands.remove_users(("",), ("a",), None),
        lambda: commands.remove_users(("ada",), ("",), None),
        lambda: commands.set_limits((), {"cpu": 1}, None),
        lambda: commands.set_limits(("a",), {}, None),
        lambda: commands.set_access((), (("paused",), "paused"), None, None),
        lambda: commands.set_access(("a",), None, None, None),
        lambda: commands.set_member_qos((), "a", (), "", None),
        lambda: commands.set_member_limits(("ada",), "", {"cpu": 1}, None),
        lambda: commands.remove_users_everywhere((), None),
        lambda: commands.remove_account("", None),
        lambda: commands.cancel_jobs((), None),
    ],
)
def test_a_command_that_would_mean_everybody_cannot_be_built(build: object) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=r"\w"):
        build()


def test_a_named_cluster_is_named_in_every_command(tmp_path: Path) -> None:
    slurm = SimulatedSlurm(cluster="big")
    settings = SlurmSettings(cluster="Big", lock_file=tmp_path / "lock", require_system_user=False)
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    apply(backend, create(backend), AddMembers("a", ("ada",)))
    apply(backend, SetLimits("a", {"cpu": None}), RemoveMembers("a", ("ada",)))
    apply(backend, DeleteResource("a", "p"))
    # coordinators belong to an account in all clusters
    of_a_cluster = [argv for argv in slurm.history if "withcoord" not in argv]
    assert all("cluster=big" in argv or "-M big" in " ".join(argv) for argv in of_a_cluster)
