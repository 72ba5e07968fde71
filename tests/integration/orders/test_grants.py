"""Partitions and QOS of new members on a real Slurm: jobs run in them, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from harness import Installation

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("policy", ["common", "individual"])
def test_members_may_use_the_partition_and_the_qos_of_the_order(
    real_site: Installation, real_slurm: Any, policy: str
) -> None:
    real_site.backend_settings.update(
        enforce_offering_partitions=True,
        qos_enforcement_enabled=True,
        enforce_offering_qos=True,
        fairshare_of_members="parent",
        default_account_policy=policy,
    )
    real_site.write(membership_sync_backend="slurm")
    testbed, user = real_site.testbed, real_slurm.users[0]
    side = testbed.sandbox.customer
    side.set_partitions({"main": (), "elsewhere": ()}, profiles=("limited",))
    project = testbed.project("climate", ada=user)
    order = side.place_create_order(project, "run", {"cpu": 1000}, {"qos": "limited"})
    done = real_site.run("--once")
    assert done.code == 0, done.err
    account = testbed.resource(order).backend_id
    columns = "format=user,partition,qos,defaultqos,fairshare"
    words = ("show", "assoc", "wopl", f"account={account}", f"user={user}", columns)
    rows = real_slurm.run("sacctmgr", "-P", "-n", *words).stdout.splitlines()
    assert sorted(rows) == [
        f"{user}|elsewhere|limited|limited|parent",
        f"{user}|main|limited|limited|parent",
    ]
    job = real_slurm.submit_job(user, account)
    asked = ("sacct", "-X", "-n", "-P", "-j", job, "--format=Partition,QOS")
    assert real_slurm.run(*asked).stdout.strip() == "main|limited"
    assert _submit(real_slurm, user, account, "--qos=normal").returncode != 0
    side.set_flags(testbed.resource(order), paused=True)
    assert real_site.run("-m", "membership_sync", "--once").code == 0
    real_slurm.wait_until(lambda: _submit(real_slurm, user, account).returncode != 0)
    side.set_flags(testbed.resource(order), paused=False)
    assert real_site.run("-m", "membership_sync", "--once").code == 0
    real_slurm.wait_until(lambda: _submit(real_slurm, user, account).returncode == 0)
    side.remove_member(project, "ada")
    ended = real_site.run("-m", "membership_sync", "--once", "--allow-removals")
    assert ended.code == 0, ended.err
    assert real_slurm.run("sacctmgr", "-P", "-n", *words).stdout == ""
    side.add_member(project, "ada")
    assert real_site.run("-m", "membership_sync", "--once").code == 0
    side.place_terminate_order(side.current(testbed.resource(order)))
    ended = real_site.run("--once")
    assert ended.code == 0, ended.err
    assert account not in real_slurm.accounts(account)


def _submit(slurm: Any, user: str, account: str, *more: str) -> Any:
    words = ("sbatch", "--test-only", "-A", account, "-t", "10", "-D", "/", *more)
    return slurm.run(*words, "--wrap", "true", user=user)
