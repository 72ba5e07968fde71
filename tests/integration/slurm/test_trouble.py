"""What goes wrong at real sites, on a real Slurm."""

from __future__ import annotations

import subprocess
import sys
import threading
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    Action,
    AddMembers,
    CheckStatus,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    Result,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import PollTimeout, ProcessRunner
from waldur_site_agent_slurm.settings import SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from integration.conftest import RealSlurm

pytestmark = pytest.mark.slurm


@pytest.fixture
def settings(tmp_path: Path) -> SlurmSettings:
    return SlurmSettings(lock_file=tmp_path / "lock", command_timeout_seconds=30)


@pytest.fixture
def backend(real_slurm: RealSlurm, settings: SlurmSettings) -> SlurmBackend:
    return SlurmBackend(settings, {}, runner=real_slurm.runner())


@pytest.fixture
def resource(backend: SlurmBackend, prefix: str) -> str:
    placement = backend.place(request_of(prefix), f"{prefix}-one")
    assert results(backend, CreateResource(placement)) == [Result.DONE]
    return placement.id


def request_of(prefix: str) -> ResourceRequest:
    return ResourceRequest(
        resource_name="Climate",
        project_slug=f"{prefix}-proj",
        project_name="Project",
        customer_slug=f"{prefix}-cust",
        customer_name="Customer",
    )


def results(backend: SlurmBackend, *actions: Action) -> list[Result]:
    return [outcome.result for outcome in backend.apply(actions)]


def test_a_member_with_a_running_job_is_removed_and_the_job_ends(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str
) -> None:
    busy, idle = real_slurm.users[:2]
    results(backend, AddMembers(resource, (busy, idle)))
    job, other = (real_slurm.submit_job(user, resource) for user in (busy, idle))
    assert results(backend, RemoveMembers(resource, (busy,))) == [Result.DONE]
    assert {idle} == backend.observe().resources[resource].members
    assert job not in real_slurm.jobs(resource)
    assert other in real_slurm.jobs(resource)


@pytest.mark.guarantee("orders: Slurm misbehaves")
def test_a_resource_with_running_jobs_is_deleted(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str, prefix: str
) -> None:
    users = real_slurm.users[:2]
    results(backend, AddMembers(resource, users))
    for user in users:
        real_slurm.submit_job(user, resource)
    assert results(backend, DeleteResource(resource, f"{prefix}-proj")) == [Result.DONE]
    assert not {resource, f"{prefix}-proj"} & set(backend.observe().resources)


@pytest.mark.guarantee("orders: Slurm misbehaves")
def test_jobs_that_do_not_end_in_time_are_temporary_trouble_and_nothing_is_removed(
    real_slurm: RealSlurm, settings: SlurmSettings, backend: SlurmBackend, resource: str
) -> None:
    user = real_slurm.users[0]
    results(backend, AddMembers(resource, (user,)))
    real_slurm.submit_job(user, resource, "trap '' TERM; while :; do sleep 1; done")
    hasty = SlurmBackend(
        settings, {}, runner=real_slurm.runner(), patience=PollTimeout(seconds=0.01)
    )
    (outcome,) = hasty.apply([RemoveMembers(resource, (user,))])
    assert isinstance(outcome.error, TemporaryError)
    assert {user} == backend.observe().resources[resource].members
    assert results(backend, RemoveMembers(resource, (user,))) == [Result.DONE]


@pytest.mark.guarantee("orders: Slurm misbehaves")
def test_a_user_whose_default_account_goes_away_gets_another_one(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str, prefix: str
) -> None:
    placement = backend.place(request_of(prefix), f"{prefix}-two")
    keeps, leaves = "wsatest5", "wsatest6"
    try:
        results(backend, CreateResource(placement))
        # not introduced by this agent: the first account is the default, none is root
        for account in (resource, placement.id):
            real_slurm.sacctmgr("add", "user", f"name={keeps}", f"account={account}")
        real_slurm.sacctmgr("add", "user", f"name={leaves}", f"account={resource}")
        assert resource == real_slurm.default_account(keeps)
        assert results(backend, RemoveMembers(resource, (keeps, leaves))) == [Result.DONE]
        assert placement.id == real_slurm.default_account(keeps)
        assert real_slurm.default_account(leaves) == ""
    finally:
        real_slurm.sacctmgr("remove", "user", "where", f"name={keeps},{leaves}")


def test_users_with_and_without_another_account_leave_together(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str
) -> None:
    first, last = "wsatest1", "wsatest7"
    try:
        results(backend, AddMembers(resource, (first,)))  # default account root
        real_slurm.sacctmgr("add", "user", f"name={last}", f"account={resource}")
        assert resource == real_slurm.default_account(last)
        assert results(backend, DeleteResource(resource)) == [Result.DONE]
        assert resource not in backend.observe().resources
    finally:
        real_slurm.sacctmgr("remove", "user", "where", f"name={last}")


def test_new_users_cannot_run_jobs_in_the_root_account(
    real_slurm: RealSlurm, backend: SlurmBackend, resource: str
) -> None:
    user = "wsatest5"
    real_slurm.sacctmgr("remove", "user", "where", f"name={user}")  # new to the cluster
    results(backend, AddMembers(resource, (user,)))
    assert real_slurm.default_account(user) == "root"
    for account in (("-A", "root"), ()):
        words = (*account, "-o", "/dev/null", "-D", "/", "--wrap", "true")
        refused = real_slurm.sbatch(*words, user=user)
        assert "AssocMaxSubmitJobLimit" in refused.stderr
    assert real_slurm.submit_job(user, resource)


class StopsInTheMiddle:
    """Starts commands as usual, and makes trouble before the first one that fits."""

    def __init__(self, runner: ProcessRunner, word: str, trouble: Callable[[], None]) -> None:
        self._runner = runner
        self._word = word
        self._trouble = trouble
        self._happened = False

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if self._word in argv and not self._happened:
            self._happened = True
            self._trouble()
        return self._runner.run(argv, timeout)


def test_slurmdbd_that_stops_in_the_middle_fails_the_rest_for_now_and_the_next_time_finishes(
    real_slurm: RealSlurm, settings: SlurmSettings, backend: SlurmBackend, prefix: str
) -> None:
    placement = backend.place(request_of(prefix), f"{prefix}-one")
    actions: list[Action] = [
        CreateResource(placement, {"cpu": Decimal(60)}),
        AddMembers(placement.id, real_slurm.users[:2]),
    ]
    runner = StopsInTheMiddle(real_slurm.runner(), "user", real_slurm.stop_slurmdbd)
    interrupted = SlurmBackend(settings, {}, runner=runner)
    try:
        outcomes = list(interrupted.apply(actions))
    finally:
        real_slurm.start()
    assert all(isinstance(outcome.error, TemporaryError) for outcome in outcomes)
    assert "slurmdbd cannot be reached" in str(outcomes[1].error)
    assert results(backend, *actions) == [Result.UNCHANGED, Result.DONE]
    found = backend.observe().resources[placement.id]
    assert set(real_slurm.users[:2]) == found.members
    assert dict(found.limits) == {"cpu": 60}


def test_a_slurmdbd_that_hangs_costs_one_timeout_for_all_actions(
    real_slurm: RealSlurm, settings: SlurmSettings, resource: str
) -> None:
    impatient = settings.model_copy(update={"command_timeout_seconds": 1.0})
    backend = SlurmBackend(impatient, {}, runner=real_slurm.runner())
    actions = [SetLimits(resource, {"cpu": Decimal(n)}) for n in range(20)]
    with real_slurm.slurmdbd_frozen():
        outcomes = list(backend.apply(actions))
    assert all("gave no answer" in str(outcome.error) for outcome in outcomes)
    assert dict(backend.commands_run()) == {"sacctmgr read": 1}


class AsUser(ProcessRunner):
    """Starts commands as another operating-system user."""

    def __init__(self, user: str, real_slurm: RealSlurm) -> None:
        super().__init__(environment=real_slurm.environment)
        self._user = user

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        return super().run(("runuser", "-u", self._user, "--", *argv), timeout)


def test_missing_permission_is_temporary_and_says_which_command_grants_it(
    real_slurm: RealSlurm, settings: SlurmSettings, backend: SlurmBackend, resource: str
) -> None:
    stranger = SlurmBackend(settings, {}, runner=AsUser("wsatest8", real_slurm))
    before = backend.observe()
    actions: list[Action] = [
        SetLimits(resource, {"cpu": Decimal(5)}),
        AddMembers(resource, real_slurm.users[:1]),
        DeleteResource(resource),
    ]
    for outcome in stranger.apply(actions):
        assert isinstance(outcome.error, TemporaryError)
        assert "adminlevel=operator" in str(outcome.error)
    assert before == backend.observe()


def test_an_operator_may_do_everything(
    real_slurm: RealSlurm, settings: SlurmSettings, resource: str
) -> None:
    operator = "wsatest8"
    real_slurm.sacctmgr("add", "user", f"name={operator}", "account=root", "adminlevel=operator")
    backend = SlurmBackend(settings, {}, runner=AsUser(operator, real_slurm))
    member = real_slurm.users[:1]
    assert (
        results(backend, SetLimits(resource, {"cpu": Decimal(5000)}), AddMembers(resource, member))
        == [Result.DONE] * 2
    )
    real_slurm.submit_job(member[0], resource)
    assert results(backend, DeleteResource(resource)) == [Result.DONE]


def test_the_diagnosis_of_a_good_cluster_is_good(
    real_slurm: RealSlurm, settings: SlurmSettings
) -> None:
    wished = settings.model_copy(update={"qos_paused": "paused", "qos_downscaled": "limited"})
    checks = list(SlurmBackend(wished, {}, runner=real_slurm.runner()).diagnose())
    assert [check for check in checks if check.verdict is not CheckStatus.OK] == []


_WRITER = """
import sys
from decimal import Decimal
from pathlib import Path
from waldur_site_agent.backends import AddMembers, SetLimits
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings

resource, component, lock, *users = sys.argv[1:]
backend = SlurmBackend(SlurmSettings(lock_file=Path(lock)), {})
for number, user in enumerate(users, start=1):
    actions = [SetLimits(resource, {component: Decimal(number)}), AddMembers(resource, (user,))]
    assert all(outcome.error is None for outcome in backend.apply(actions))
"""


def test_two_processes_that_write_to_one_account_lose_nothing(
    real_slurm: RealSlurm, settings: SlurmSettings, backend: SlurmBackend, resource: str
) -> None:
    shares = {"cpu": real_slurm.users[:3], "gres/gpu": real_slurm.users[3:6]}
    codes: list[int] = []

    def write(component: str, users: tuple[str, ...]) -> None:
        argv = [sys.executable, "-c", _WRITER, resource, component, str(settings.lock_file)]
        done = subprocess.run([*argv, *users], env=real_slurm.environment, check=False)
        codes.append(done.returncode)

    writers = [threading.Thread(target=write, args=share) for share in shares.items()]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert codes == [0, 0]
    found = backend.observe().resources[resource]
    assert set(real_slurm.users[:6]) == found.members
    assert dict(found.limits) == {"cpu": 3, "gres/gpu": 3}


def test_25_resources_with_the_same_members_are_joined_by_one_command(
    real_slurm: RealSlurm, settings: SlurmSettings, prefix: str
) -> None:
    backend = SlurmBackend(settings, {}, runner=real_slurm.runner())
    placements = [backend.place(request_of(prefix), f"{prefix}-{n}") for n in range(25)]
    actions: list[Action] = []
    for placement in placements:
        actions.append(CreateResource(placement, {"cpu": Decimal(60)}))
        actions.append(AddMembers(placement.id, real_slurm.users[:5]))
    assert results(backend, *actions) == [Result.DONE] * 50
    created, introduced, joined = 25 + 2, 1, 1
    assert created + introduced + joined == backend.commands_run()["sacctmgr write"]
    assert backend.commands_run()["sacctmgr read"] == 2
