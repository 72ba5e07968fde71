"""A QOS of its own for an account on a real Slurm, with the resource's limits on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness import Installation

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def no_qos_left_over(real_slurm: Any, prefix: str) -> Iterator[None]:
    yield
    real_slurm.clean(prefix)
    names = _qos(real_slurm, "", "name").split()
    if left := [name for name in names if name.startswith(prefix)]:
        real_slurm.sacctmgr("remove", "qos", "where", f"name={','.join(left)}")


def test_the_qos_is_made_used_limited_and_removed_with_the_account(
    real_site: Installation, real_slurm: Any
) -> None:
    management = {
        "enabled": True,
        "skip_qos_swap": True,
        "apply_limits_to_qos": True,
        "grp_tres": "cpu=8",
        "max_jobs": 3,
        "max_submit": 4,
        "max_wall": "1-00:00:00",
        "min_tres_per_job": "cpu=1",
        "additional_qos": ["limited"],
    }
    del real_site.backend_settings["qos_default"]
    real_site.backend_settings.update(qos_management=management)
    real_site.write(membership_sync_backend="slurm")
    testbed, user = real_site.testbed, real_slurm.users[0]
    side = testbed.sandbox.customer
    order = testbed.order(testbed.project("climate", ada=user), "run", cpu=10)
    done = real_site.run("--once")
    assert done.code == 0, done.err
    account = testbed.resource(order).backend_id
    columns = "name,flags,grptres,maxjobspu,maxsubmitpu,maxwall,mintres,grptresmins"
    assert _qos(real_slurm, account, columns) == (
        f"{account}|DenyOnLimit,NoDecay|cpu=8|3|4|1-00:00:00|cpu=1|cpu=600000"
    )
    own = _account(real_slurm, account)
    assert own == f"{','.join(sorted([account, 'limited', 'normal']))}|{account}||"
    job = real_slurm.submit_job(user, account)
    asked = ("sacct", "-X", "-n", "-P", "-j", job, "--format=QOS")
    assert real_slurm.run(*asked).stdout.strip() == account
    update = side.place_update_order(testbed.resource(order), {"cpu": 20})
    assert real_site.run("--once").code == 0
    assert testbed.state(update) == "done"
    assert _qos(real_slurm, account, "grptresmins") == "cpu=1200000"
    synced = real_site.run("-m", "membership_sync", "--once")
    assert (synced.code, _account(real_slurm, account)) == (0, own)
    side.set_flags(testbed.resource(order), paused=True)
    assert real_site.run("-m", "membership_sync", "--once").code == 0
    assert _account(real_slurm, account) == own.removesuffix("|") + "0|"
    side.place_terminate_order(side.current(testbed.resource(order)))
    ended = real_site.run("--once")
    assert ended.code == 0, ended.err
    assert _qos(real_slurm, account, "name") == ""
    assert account not in real_slurm.accounts(account)


def _qos(slurm: Any, name: str, columns: str) -> str:
    only = (f"name={name}",) if name else ()
    words = ("sacctmgr", "-P", "-n", "show", "qos", *only, f"format={columns}")
    return str(slurm.run(*words).stdout.strip())


def _account(slurm: Any, name: str) -> str:
    """The QOS list in order, the default, GrpSubmitJobs and GrpTRESMins of an account."""
    words = ("show", "account", "withassoc", "wopl", f"name={name}", "user=")
    columns = "format=qos,defaultqos,grpsubmit,grptresmins"
    (row,) = slurm.run("sacctmgr", "-P", "-n", *words, columns).stdout.splitlines()[:1]
    names, _, rest = row.partition("|")
    return f"{','.join(sorted(names.split(',')))}|{rest}"
