"""Limits of members, and what may stand in the way of a removal, on the simulated Slurm."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    Result,
    SetMemberLimits,
    TemporaryError,
)
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import PollTimeout
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm

if TYPE_CHECKING:
    from pathlib import Path

    from waldur_site_agent.backends import Action, Outcome

REQUEST = ResourceRequest(
    resource_name="Res", project_slug="p", project_name="Proj",
    customer_slug="c", customer_name="Cust",
)  # fmt: skip
PEOPLE = ("ada", "bob", "cyd")


@pytest.fixture
def slurm() -> SimulatedSlurm:
    return SimulatedSlurm()


@pytest.fixture
def settings(tmp_path: Path) -> SlurmSettings:
    return SlurmSettings(lock_file=tmp_path / "lock", require_system_user=False)


@pytest.fixture
def backend(slurm: SimulatedSlurm, settings: SlurmSettings) -> SlurmBackend:
    patience = PollTimeout(seconds=0)
    backend = SlurmBackend(settings, {}, runner=slurm.runner(), patience=patience)
    apply(backend, *(CreateResource(backend.place(REQUEST, slug)) for slug in ("a", "b")))
    apply(backend, AddMembers("a", PEOPLE))
    slurm.history.clear()
    return backend


def apply(backend: SlurmBackend, *actions: Action) -> list[Outcome]:
    return list(backend.apply(actions))


def written(slurm: SimulatedSlurm) -> list[str]:
    lines = [" ".join(argv[2:]) for argv in slurm.history if "-i" in argv]
    slurm.history.clear()
    return lines


def sacctmgr(slurm: SimulatedSlurm, *words: str) -> None:
    assert slurm.run(["sacctmgr", "-i", *words])[0] == 0
    slurm.history.clear()


def limit(who: str, cpu: int | None, account: str = "a") -> SetMemberLimits:
    return SetMemberLimits(account, who, {"cpu": None if cpu is None else Decimal(cpu)})


def test_members_with_the_same_limits_share_a_command_for_each_account(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, AddMembers("b", PEOPLE))
    written(slurm)
    apply(backend, limit("ada", 60), limit("cyd", 60), limit("bob", 7), limit("ada", 60, "b"))
    assert written(slurm) == [
        "modify user where name=ada,cyd account=a set GrpTRESMins=cpu=60",
        "modify user where name=bob account=a set GrpTRESMins=cpu=7",
        "modify user where name=ada account=b set GrpTRESMins=cpu=60",
    ]
    apply(backend, limit("ada", None), limit("cyd", None))
    assert written(slurm) == ["modify user where name=ada,cyd account=a set GrpTRESMins=cpu=-1"]


def test_tres_names_are_read_once_a_cycle_and_only_for_a_change(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, limit("ada", None))
    assert not [argv for argv in slurm.history if "tres" in argv]
    backend.observe()
    apply(backend, limit("ada", 5), limit("bob", 6))
    apply(backend, limit("ada", 7))
    assert len([argv for argv in slurm.history if "tres" in argv]) == 1


def test_a_new_member_is_limited_in_the_same_call(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    outcomes = apply(backend, AddMembers("a", ("dora",)), limit("dora", 5))
    assert [outcome.result for outcome in outcomes] == [Result.DONE] * 2
    assert slurm.state.accounts["a"].members["dora"].limits == {"cpu": 5}


@pytest.mark.parametrize(("wanted", "agrees"), [(1049088, True), (1048577, False), (5, False)])
def test_memory_that_prints_alike_agrees(backend: SlurmBackend, wanted: int, agrees: bool) -> None:
    printed_as_1_00_tebi = Decimal(1048576)
    assert agrees is backend.limits_agree("mem", Decimal(wanted), printed_as_1_00_tebi)
    assert not backend.limits_agree("cpu", Decimal("1.5"), Decimal(1))


def test_a_user_of_three_partitions_is_one_member_and_loses_all_associations(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    for partition in ("cpu", "gpu", "big"):
        sacctmgr(slurm, "add", "user", "name=dora", "account=a", f"partition={partition}")
        sacctmgr(slurm, "add", "user", "name=ada", "account=a", f"partition={partition}")
    assert backend.observe().resources["a"].members == {*PEOPLE, "dora"}
    slurm.history.clear()
    outcomes = apply(backend, RemoveMembers("a", ("ada", "dora")))
    assert [outcome.result for outcome in outcomes] == [Result.DONE]
    assert written(slurm) == [
        "remove user where name=ada account=a",
        "remove user where name=dora",
    ]
    assert backend.observe().resources["a"].members == {"bob", "cyd"}


def test_an_account_whose_users_have_partitions_is_deleted(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    sacctmgr(slurm, "add", "user", "name=dora", "account=b", "partition=cpu")
    sacctmgr(slurm, "add", "user", "name=dora", "account=b", "partition=gpu")
    assert [o.result for o in apply(backend, DeleteResource("b"))] == [Result.DONE]


def test_someone_who_moves_to_another_account_takes_the_default_along(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    sacctmgr(slurm, "add", "user", "name=dora", "account=a")
    outcomes = apply(backend, RemoveMembers("a", ("dora",)), AddMembers("b", ("dora",)))
    assert [outcome.result for outcome in outcomes] == [Result.DONE] * 2
    assert slurm.state.users["dora"].default_account == "b"


def test_jobs_that_may_not_be_cancelled_keep_their_owners_and_nobody_else(
    backend: SlurmBackend, slurm: SimulatedSlurm, settings: SlurmSettings
) -> None:
    del backend
    job = slurm.submit_job("ada", "a", "PENDING")
    gentle = settings.model_copy(update={"cancel_jobs_on_removal": False})
    careful = SlurmBackend(gentle, {}, runner=slurm.runner())
    (outcome,) = apply(careful, RemoveMembers("a", ("ada", "bob")))
    with pytest.raises(TemporaryError, match=rf"ada stays.*\({job}\).*cancel_jobs_on_removal"):
        raise outcome.error or AssertionError
    assert set(slurm.state.accounts["a"].members) == {"ada", "cyd"}
    assert job in slurm.state.jobs
    slurm.end_job(job)
    assert [o.result for o in apply(careful, RemoveMembers("a", ("ada", "bob")))] == [Result.DONE]


def test_2000_members_come_and_go_by_a_few_commands(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    crowd = tuple(f"u{number:04}" for number in range(2000))
    actions: tuple[Action, ...] = (AddMembers("b", crowd), *(limit(u, 5, "b") for u in crowd))
    assert {o.result for o in apply(backend, *actions)} == {Result.DONE}
    assert len(written(slurm)) == 3 * 4
    assert [o.result for o in apply(backend, RemoveMembers("b", crowd))] == [Result.DONE]
    lines = written(slurm)
    assert len(lines) == 4
    assert max(len(line) for line in lines) < 100_000


def test_names_in_another_case_are_the_same_names(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    outcomes = apply(
        backend, AddMembers("A", ("ADA",)), limit("Ada", 5, "A"), RemoveMembers("a", ("BOB",))
    )
    expected = [Result.UNCHANGED, Result.DONE, Result.DONE]
    assert [outcome.result for outcome in outcomes] == expected
    assert set(slurm.state.accounts["a"].members) == {"ada", "cyd"}
