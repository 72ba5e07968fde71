"""membership_sync: pausing, limits, missing accounts and what Waldur is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from harness import SimulatedSite, a_simulated_site


@pytest.mark.guarantee("membership: Access")
def test_pausing_and_restoring_keeps_the_sites_own_qos_list(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    resource = testbed.settled(testbed.project(ada="ada01"))
    account = f"name={resource.backend_id}"
    with testbed.slurm.change() as state:
        state.qos += [name for name in ("long", "limited", "paused") if name not in state.qos]
    testbed.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "qos=normal,long"]
    )
    testbed.sync()
    assert set(testbed.slurm.state.accounts[resource.backend_id].qos) == {"normal", "long"}
    testbed.forget()
    side.set_flags(resource, paused=True, downscaled=True)
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    assert side.current(resource).backend_metadata["qos"] == "paused"
    side.set_flags(resource, paused=False)
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].qos == ["limited"]
    side.set_flags(resource, downscaled=False)
    testbed.sync()
    assert set(testbed.slurm.state.accounts[resource.backend_id].qos) == {"normal", "long"}
    metadata = side.current(resource).backend_metadata
    assert set(str(metadata["qos"]).split(",")) == {"normal", "long"}
    assert not any(key.endswith("_before") for key in metadata)


def test_a_pause_killed_after_any_request_still_restores_the_old_list(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    resource = testbed.settled(testbed.project(ada="ada01"))
    side.set_flags(resource, paused=True)
    testbed.sandbox.faults.add("*_set_backend_metadata", "lost_answer", times=1)
    testbed.sync()
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    side.set_flags(resource, paused=False)
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].qos in ([], ["normal"])


@pytest.mark.guarantee("membership: Limits")
def test_limits_of_a_member_are_set_changed_and_withdrawn(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    resource = testbed.settled(testbed.project(ada="ada01", bob="bob01"))
    side.set_user_limit(resource, "ada", "cpu", 2)

    def limit_of(name: str) -> str:
        query = f"account={resource.backend_id}"
        words = ["show", "assoc", "wopl", "where", query, f"user={name}"]
        _, out, _ = testbed.slurm.run(["sacctmgr", "-P", "-n", *words, "format=grptresmins"])
        return out.strip()

    testbed.sync()
    assert (limit_of("ada01"), limit_of("bob01")) == ("cpu=120000", "")
    testbed.forget()
    testbed.sync()
    assert testbed.writing_commands == 0
    side.clear_user_limit(resource, "ada", "cpu")
    testbed.sync()
    assert limit_of("ada01") == ""


@pytest.mark.guarantee("membership: Limits")
def test_limits_found_in_the_cluster_are_told_once(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10, mem=2)
    account = f"name={resource.backend_id}"
    testbed.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "GrpTRESMins=cpu=900000"]
    )
    testbed.sync()
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 15, "mem": 2}
    testbed.forget()
    testbed.sync()
    assert testbed.sandbox.requests.writes() == []


def test_limits_that_a_periodic_policy_owns_are_not_told(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10)
    testbed.sandbox.customer.add_periodic_policy()
    account = f"name={resource.backend_id}"
    testbed.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "GrpTRESMins=cpu=900000"]
    )
    testbed.sync()
    assert testbed.sandbox.requests.count("*_set_limits") == 0


@pytest.mark.guarantee("membership: Scope")
def test_a_resource_with_an_order_in_progress_keeps_its_members_up_to_date(
    testbed: SimulatedSite,
) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    resource = testbed.settled(project, cpu=10)
    side.place_update_order(resource, {"cpu": 20})
    side.set_flags(resource, paused=True)
    side.add_member(project, testbed.person("bob", "bob01"))
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01"}
    assert testbed.slurm.state.accounts[resource.backend_id].qos in ([], ["normal"])
    assert testbed.sandbox.requests.count("*_set_limits") == 0


@pytest.mark.guarantee("membership: Missing accounts")
def test_a_missing_account_is_marked_once_and_set_ok_when_it_is_back(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    resource = testbed.settled(testbed.project(ada="ada01"))
    other = testbed.settled(testbed.project("other", bob="bob01"))
    name = resource.backend_id
    testbed.slurm.run(["sacctmgr", "-i", "remove", "account", "where", f"name={name}"])
    assert testbed.sync().failed
    assert side.current(resource).state == "Erred"
    assert name in side.current(resource).error_message
    assert side.current(other).state == "OK"
    testbed.sync()
    assert testbed.sandbox.requests.count("*_set_as_erred") == 1
    words = [f"name={name}", "parent=p_climate", "organization=p_climate"]
    testbed.slurm.run(["sacctmgr", "-i", "add", "account", *words])
    assert not testbed.sync().failed
    assert side.current(resource).state == "OK"
    assert testbed.members_of(resource) == {"ada01"}


@pytest.mark.guarantee("membership: Missing accounts")
def test_a_cluster_without_any_of_the_accounts_marks_nothing(testbed: SimulatedSite) -> None:
    resources = [testbed.settled(testbed.project(f"p{n}", ada="ada01")) for n in range(12)]
    with testbed.slurm.change() as state:
        for resource in resources:
            del state.accounts[resource.backend_id]
    report = testbed.sync()
    assert "right cluster" in " ".join(report.failures)
    assert testbed.sandbox.requests.count("*_set_as_erred") == 0


@pytest.mark.parametrize(("minutes", "renewals"), [(45, 0), (55, 1)])
def test_the_sync_mark_is_renewed_only_when_it_is_old(
    testbed: SimulatedSite, minutes: int, renewals: int
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    synced = datetime.now(UTC) - timedelta(minutes=minutes)
    testbed.sandbox.customer.edit(resource, last_sync=synced)
    testbed.sync()
    assert testbed.sandbox.requests.count("*_refresh_last_sync") == renewals


def test_a_token_for_the_members_only_still_does_its_work(testbed: SimulatedSite) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    resource = testbed.settled(project)
    for call in ("set_backend_metadata", "refresh_last_sync", "set_limits", "set_as_ok"):
        testbed.sandbox.faults.add(f"*_{call}", "status", status=403, times=None)
    side.add_member(project, testbed.person("bob", "bob01"))
    side.set_flags(resource, paused=True)
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01"}


@pytest.mark.guarantee("membership: Access")
def test_an_account_whose_qos_cannot_be_kept_in_waldur_is_not_restricted(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    account = testbed.slurm.state.accounts[resource.backend_id]
    before = list(account.qos)
    testbed.sandbox.faults.add("*_set_backend_metadata", "status", status=403, times=1)
    testbed.sandbox.customer.set_flags(resource, paused=True)
    assert "could not save the current QOS/limits" in " ".join(testbed.sync().failures)
    assert testbed.slurm.state.accounts[resource.backend_id].qos == before
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    testbed.sandbox.customer.set_flags(resource, paused=False)
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].qos == before


@pytest.mark.guarantee("membership: Scope")
def test_two_resources_on_one_account_share_their_members(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    first = testbed.settled(testbed.project("one", ada="ada01"))
    second = testbed.settled(testbed.project("two", bob="bob01"))
    side.edit(second, backend_id=first.backend_id)
    side.set_flags(first, paused=True)
    testbed.sync()
    assert testbed.members_of(first) == {"ada01", "bob01"}
    assert testbed.slurm.state.accounts[first.backend_id].qos in ([], ["normal"])


@pytest.mark.parametrize("version", ["7.7.9", "7.9.0", "8.0.5", "8.1.3"])
def test_every_generation_of_servers_is_served(
    tmp_path_factory: pytest.TempPathFactory, version: str
) -> None:
    with a_simulated_site(tmp_path_factory.mktemp("h") / "lock", version) as testbed:
        side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
        resource = testbed.settled(project)
        side.add_member(project, testbed.person("bob", "bob01"))
        side.remove_member(project, "ada")
        report = testbed.sync()
        assert not report.failed, report.failures
        assert testbed.members_of(resource) == {"bob01"}
        testbed.forget()
        testbed.sync()
        assert testbed.sandbox.requests.writes() == []
