"""``import list`` as an administrator types it."""

from __future__ import annotations

import json

from harness import Installation
from waldur_site_agent_slurm.simulator.state import SimAccount


def test_accounts_that_waldur_does_not_know_are_listed_and_nothing_is_changed(
    installation: Installation,
) -> None:
    installation.write(membership_sync_backend="slurm")
    testbed = installation.testbed
    testbed.settled(testbed.project("climate", ada="ada01"), cpu=10)
    with testbed.slurm.change() as state:
        state.accounts["a_old"] = SimAccount(
            "a_old", "old", "p_climate", "p_climate", limits={"cpu": 120000}
        )
    done = installation.run("import", "list", command="waldur-site-agent")
    assert done.code == 0, done.err
    assert "+ a_old                    project climate (Climate), cpu 2.00" in done.out
    assert "1 left out: they belong to a resource in Waldur" in done.out
    printed = installation.run("import", "list", "--output", "json", command="waldur-site-agent")
    assert [offer["account"] for offer in json.loads(printed.out)["Test cluster"]["offers"]] == [
        "a_old"
    ]
    assert testbed.sandbox.requests.writes() == []
