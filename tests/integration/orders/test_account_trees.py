"""Every shape of the account tree on a real Slurm: made, used by jobs, ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import Installation, SimulatedSite

pytestmark = pytest.mark.slurm

ROOTED = {"root_account": "top", "default_account": "everybody"}
FLAT = {"parent_account": "top", "default_account_policy": "individual"}
FLATTEST = {
    "parent_account": "top",
    "parent_account_holds": "allocations",
    "default_account_policy": "none",
}


@pytest.mark.parametrize(
    ("shape", "above", "default"),
    [
        (ROOTED, ["p_climate", "c_uni", "top", "root"], "everybody"),
        (FLAT, ["p_climate", "top", "root"], ""),
        (FLATTEST, ["top", "root"], ""),
    ],
    ids=["rooted", "flat", "flattest"],
)
def test_a_tree_is_made_used_and_ended(
    real_slurm: Any,
    prefix: str,
    testbed: SimulatedSite,
    tmp_path: Path,
    shape: dict[str, str],
    above: list[str],
    default: str,
) -> None:
    own = {key: f"{prefix}{value}" for key, value in shape.items() if key in _NAMES}
    for name in own.values():
        real_slurm.sacctmgr("add", "account", f"name={name}", "parent=root")
    prefixes = {f"{k}_prefix": f"{prefix}{k[0]}_" for k in ("customer", "project", "allocation")}
    variables = {"SLURM_CONF": str(real_slurm.slurm_conf)}
    site = Installation(testbed, tmp_path, {**shape, **own, **prefixes}, variables)
    site.write()
    user = real_slurm.users[0]
    order = testbed.order(testbed.project("climate", ada=user), "run", cpu=10)
    done = site.run("--once")
    assert done.code == 0, done.err
    account = testbed.resource(order).backend_id
    expected = [name if name == "root" else f"{prefix}{name}" for name in above]
    assert _above(real_slurm, account) == expected
    assert real_slurm.default_account(user) == (f"{prefix}{default}" if default else account)
    real_slurm.submit_job(user, account)
    assert site.run("--once").code == 0
    side = testbed.sandbox.customer
    side.place_terminate_order(side.current(testbed.resource(order)))
    ended = site.run("--once")
    assert ended.code == 0, ended.err
    left = {*own.values(), *(name for name in expected if name.endswith("c_uni"))}
    assert set(real_slurm.accounts(prefix)) == left


_NAMES = ("root_account", "parent_account", "default_account")


def _above(slurm: Any, account: str) -> list[str]:
    parents = {
        row.split("|")[0]: row.split("|")[2]
        for row in slurm.associations()
        if not row.split("|")[1]
    }
    found = []
    while parents[account]:
        account = parents[account]
        found.append(account)
    return found
