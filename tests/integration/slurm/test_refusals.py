"""Why Slurm refuses jobs, or lets them wait: foretold, and then seen with a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from integration.conftest import RealSlurm
from waldur_site_agent.backends import Effect, Refusal, Standing
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import ProcessRunner
from waldur_site_agent_slurm.settings import SlurmSettings

USER = "wsatest1"
UNDECIDED = ("None", "Priority", "Resources", "")


class RefusalCase:
    """An account below a project's, with one member, and what a support team asks about it."""

    def __init__(self, slurm: RealSlurm, prefix: str) -> None:
        self.slurm, self.account, self.above = slurm, f"{prefix}a", f"{prefix}p"
        slurm.sacctmgr("add", "account", f"name={self.above}", "parent=root")
        slurm.sacctmgr("add", "account", f"name={self.account}", f"parent={self.above}")
        slurm.sacctmgr("add", "user", f"name={USER}", f"account={self.account}")
        self.until(lambda: not self.refusals())

    def standing(self, user: str = USER) -> Standing:
        backend = SlurmBackend(
            SlurmSettings(), {}, runner=ProcessRunner(environment=self.slurm.environment)
        )
        return backend.explain([self.account], [user])

    def refusals(self, user: str = USER) -> list[Refusal]:
        found = self.standing(user)
        resource = found.resources[self.account]
        members = resource.members[user].refusals if user in resource.members else ()
        return [*found.users[user].refusals, *resource.refusals, *members]

    def set(self, entity: str, *words: str) -> None:
        where = {
            "account": ("account", "where", f"name={self.account}"),
            "above": ("account", "where", f"name={self.above}"),
            "user": ("user", "where", f"name={USER}", f"account={self.account}"),
        }[entity]
        self.slurm.sacctmgr("modify", *where, "set", *words)

    def answer(self, *words: str, user: str = USER, account: bool = True) -> tuple[Effect, str]:
        """What becomes of a job: whether it is refused or waits, and Slurm's words for it."""
        where = ("-A", self.account) if account else ()
        usual = ("--parsable", *where, "-o", "/dev/null", "-t", "5", "-D", "/")
        done = self.slurm.run("sbatch", *usual, *words, "--wrap", "sleep 60", user=user)
        job = done.stdout.strip()
        if not job.isdigit():
            return Effect.REFUSED, done.stderr
        try:
            return Effect.WAITS, self._reason(job)
        finally:
            self.slurm.run("scancel", job)

    def _reason(self, job: str) -> str:
        found: list[str] = []

        def is_decided() -> bool:
            found[:] = [self.slurm.run("squeue", "-h", "-j", job, "-o", "%r").stdout.strip()]
            running = self.slurm.run("squeue", "-h", "-j", job, "-o", "%T").stdout.strip()
            return running == "RUNNING" or found[0] not in UNDECIDED

        self.until(is_decided)
        return found[0]

    def until(self, condition: Callable[[], bool]) -> None:
        self.slurm.wait_until(condition)

    def heard(self, rule: str) -> Refusal:
        """The refusal of a rule, once slurmctld has heard of it."""
        found: list[Refusal] = []

        def is_there() -> bool:
            found[:] = [each for each in self.refusals() if each.rule.startswith(rule)]
            return bool(found)

        self.until(is_there)
        return found[0]


@pytest.fixture
def case(real_slurm: RealSlurm, prefix: str) -> Iterator[RefusalCase]:
    yield RefusalCase(real_slurm, prefix)
    real_slurm.sacctmgr("modify", "qos", "where", "name=limited", "set", "GrpTRESMins=cpu=-1")
    real_slurm.run("scontrol", "update", "partitionname=main", "allowaccounts=all")
    real_slurm.run("scontrol", "update", "partitionname=main", "denyaccounts=")


def test_nothing_is_said_against_a_job_that_runs(case: RefusalCase) -> None:
    assert case.refusals() == []
    assert case.answer() == (Effect.WAITS, "None")


@pytest.mark.parametrize(
    ("entity", "setting", "cleared", "rule"),
    [
        ("account", "GrpTRESMins=cpu=0", "GrpTRESMins=cpu=-1", "GrpTRESMins of account"),
        ("above", "GrpTRESMins=cpu=0", "GrpTRESMins=cpu=-1", "GrpTRESMins of account"),
        ("user", "GrpTRESMins=cpu=0", "GrpTRESMins=cpu=-1", f"GrpTRESMins of {USER}"),
        ("above", "GrpSubmitJobs=0", "GrpSubmitJobs=-1", "GrpSubmitJobs of account"),
        ("account", "GrpTRES=cpu=0", "GrpTRES=cpu=-1", "GrpTRES of account"),
        ("account", "GrpWall=0", "GrpWall=-1", "GrpWall of account"),
        ("account", "MaxJobs=0", "MaxJobs=-1", f"MaxJobs of {USER}"),
        ("account", "MaxSubmitJobs=0", "MaxSubmitJobs=-1", f"MaxSubmitJobs of {USER}"),
    ],
)
def test_a_reached_limit_is_foretold_with_slurms_own_reason(
    case: RefusalCase, entity: str, setting: str, cleared: str, rule: str
) -> None:
    case.set(entity, setting)
    foretold = case.heard(rule)
    effect, said = case.answer()
    assert (effect, foretold.answer in said) == (foretold.effect, True), (foretold, said)
    case.set(entity, cleared)


def test_a_limit_of_gpus_meets_only_jobs_that_ask_for_them(case: RefusalCase) -> None:
    case.set("account", "GrpTRESMins=gres/gpu=0")
    foretold = case.heard("GrpTRESMins")
    assert foretold.jobs == "that ask for gres/gpu"
    assert case.answer() == (Effect.WAITS, "None")
    assert case.answer("--gres=gpu:1") == (foretold.effect, foretold.answer)


def test_a_paused_account_is_refused_by_its_qos(case: RefusalCase) -> None:
    case.set("account", "qos=paused", "DefaultQOS=paused")
    foretold = case.heard("MaxSubmitJobsPerUser of QOS paused")
    effect, said = case.answer()
    assert (effect, foretold.answer in said) == (Effect.REFUSED, True)


def test_a_used_up_qos_lets_jobs_wait(case: RefusalCase) -> None:
    case.slurm.sacctmgr("modify", "qos", "where", "name=limited", "set", "GrpTRESMins=cpu=0")
    case.set("account", "qos=limited", "DefaultQOS=limited")
    foretold = case.heard("GrpTRESMins of QOS limited")
    assert case.answer() == (foretold.effect, foretold.answer)


def test_a_list_of_qos_without_a_default_is_refused(case: RefusalCase) -> None:
    case.set("account", "qos=limited,paused")
    foretold = case.heard("QOS of account")
    effect, said = case.answer()
    assert (effect, foretold.answer in said) == (Effect.REFUSED, True)
    assert case.answer("--qos=limited") == (Effect.WAITS, "None")


def test_a_missing_association_is_refused(case: RefusalCase) -> None:
    (foretold,) = case.refusals("wsatest2")
    effect, said = case.answer(user="wsatest2")
    assert (effect, foretold.answer in said) == (Effect.REFUSED, True)


def test_a_user_without_default_account_needs_to_name_one(case: RefusalCase) -> None:
    slurm, other = case.slurm, case.above
    slurm.sacctmgr("add", "user", f"name={USER}", f"account={other}")
    slurm.sacctmgr("modify", "user", "where", f"name={USER}", "set", f"DefaultAccount={other}")
    slurm.sacctmgr("remove", "user", "where", f"name={USER}", f"account={other}")
    if slurm.default_account(USER):  # 24.11 refuses to remove the default
        pytest.skip("this Slurm lets nobody be without a default account")
    foretold = case.heard("default account")
    effect, said = case.answer(account=False)
    assert (effect, foretold.answer in said) == (Effect.REFUSED, True)
    assert case.answer() == (Effect.WAITS, "None")
    slurm.run(*foretold.remedy.replace("sacctmgr", "sacctmgr -i").split())
    case.until(lambda: case.answer(account=False) == (Effect.WAITS, "None"))


def test_a_user_whom_slurmctld_did_not_know_is_refused_until_it_looks_again(
    case: RefusalCase, user_without_home: Callable[[], str]
) -> None:
    slurm = case.slurm
    name = f"wsahome{os.getpid()}"
    slurm.sacctmgr("add", "user", f"name={name}", f"account={case.account}")
    case.until(lambda: any(each.rule == "uid in slurmctld" for each in case.refusals(name)))
    assert user_without_home() == name
    (foretold,) = case.refusals(name)
    effect, said = case.answer(user=name)
    assert (effect, foretold.answer in said) == (Effect.REFUSED, True)
    slurm.run(*foretold.remedy.split())
    case.until(lambda: not case.refusals(name))
    case.until(lambda: case.answer(user=name)[0] is Effect.WAITS)


def test_a_partition_for_other_accounts_lets_jobs_wait(case: RefusalCase) -> None:
    case.slurm.run("scontrol", "update", "partitionname=main", f"denyaccounts={case.account}")
    foretold = case.heard("partition main")
    effect, said = case.answer()
    assert (effect, foretold.answer in said) == (Effect.WAITS, True), (foretold, said)


def test_accounts_below_one_that_a_partition_allows_are_told_as_slurm_has_it(
    case: RefusalCase,
) -> None:
    case.slurm.run("scontrol", "update", "partitionname=main", f"allowaccounts={case.above}")
    foretold = [each.answer for each in case.refusals() if each.rule == "partition main"]
    _, said = case.answer()
    assert (foretold or ["None"])[0] in said


def test_a_limit_of_each_user_further_up_is_told_where_slurmctld_applies_it(
    case: RefusalCase,
) -> None:
    """24.11 hands it to the accounts below, not to their users until slurmctld restarts."""
    case.set("above", "MaxJobs=0")
    asked = ("scontrol", "show", "assoc_mgr", "flags=assoc", f"accounts={case.account}")
    case.until(lambda: "MaxJobs=0(" in case.slurm.run(*asked).stdout)
    foretold = [each.answer for each in case.refusals() if each.rule.startswith("MaxJobs of")]
    _, said = case.answer()
    assert [said] == (foretold or ["None"])


def test_nobody_needs_a_right_to_write_for_it(case: RefusalCase) -> None:
    asked = ("scontrol", "show", "assoc_mgr", "flags=assoc", f"accounts={case.account}")
    assert f"Account={case.account} " in case.slurm.run(*asked, user="wsatest3").stdout
