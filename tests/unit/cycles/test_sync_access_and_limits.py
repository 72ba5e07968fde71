"""membership_sync: pausing, limits, missing accounts and what Waldur is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from harness import House, a_house


def test_pausing_and_restoring_keeps_the_sites_own_qos_list(house: House) -> None:
    side = house.sandbox.customer
    resource = house.settled(house.project(ada="ada01"))
    account = f"name={resource.backend_id}"
    with house.slurm.change() as state:
        state.qos += [name for name in ("long", "limited", "paused") if name not in state.qos]
    house.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "qos=normal,long"]
    )
    house.sync()
    assert set(house.slurm.state.accounts[resource.backend_id].qos) == {"normal", "long"}
    house.forget()
    side.set_flags(resource, paused=True, downscaled=True)
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    assert side.current(resource).backend_metadata["qos"] == "paused"
    side.set_flags(resource, paused=False)
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == ["limited"]
    side.set_flags(resource, downscaled=False)
    house.sync()
    assert set(house.slurm.state.accounts[resource.backend_id].qos) == {"normal", "long"}
    metadata = side.current(resource).backend_metadata
    assert set(str(metadata["qos"]).split(",")) == {"normal", "long"}
    assert not any(key.endswith("_before") for key in metadata)


def test_a_pause_killed_after_any_request_still_restores_the_old_list(house: House) -> None:
    side = house.sandbox.customer
    resource = house.settled(house.project(ada="ada01"))
    side.set_flags(resource, paused=True)
    house.sandbox.faults.add("*_set_backend_metadata", "lost_answer", times=1)
    house.sync()
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    side.set_flags(resource, paused=False)
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos in ([], ["normal"])


def test_limits_of_a_member_are_set_changed_and_withdrawn(house: House) -> None:
    side = house.sandbox.customer
    resource = house.settled(house.project(ada="ada01", bob="bob01"))
    side.set_user_limit(resource, "ada", "cpu", 2)

    def limit_of(name: str) -> str:
        query = f"account={resource.backend_id}"
        words = ["show", "assoc", "wopl", "where", query, f"user={name}"]
        _, out, _ = house.slurm.run(["sacctmgr", "-P", "-n", *words, "format=grptresmins"])
        return out.strip()

    house.sync()
    assert (limit_of("ada01"), limit_of("bob01")) == ("cpu=120000", "")
    house.forget()
    house.sync()
    assert house.writing_commands == 0
    side.clear_user_limit(resource, "ada", "cpu")
    house.sync()
    assert limit_of("ada01") == ""


def test_limits_found_in_the_cluster_are_told_once(house: House) -> None:
    resource = house.settled(house.project(ada="ada01"), cpu=10, mem=2)
    account = f"name={resource.backend_id}"
    house.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "GrpTRESMins=cpu=900000"]
    )
    house.sync()
    assert house.sandbox.customer.current(resource).limits == {"cpu": 15, "mem": 2}
    house.forget()
    house.sync()
    assert house.sandbox.requests.writes() == []


def test_limits_that_a_periodic_policy_owns_are_not_told(house: House) -> None:
    resource = house.settled(house.project(ada="ada01"), cpu=10)
    house.sandbox.customer.add_periodic_policy()
    account = f"name={resource.backend_id}"
    house.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "GrpTRESMins=cpu=900000"]
    )
    house.sync()
    assert house.sandbox.requests.count("*_set_limits") == 0


def test_a_resource_with_an_order_in_progress_keeps_its_members_up_to_date(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    resource = house.settled(project, cpu=10)
    side.place_update_order(resource, {"cpu": 20})
    side.set_flags(resource, paused=True)
    side.add_member(project, house.person("bob", "bob01"))
    house.sync()
    assert house.members_of(resource) == {"ada01", "bob01"}
    assert house.slurm.state.accounts[resource.backend_id].qos in ([], ["normal"])
    assert house.sandbox.requests.count("*_set_limits") == 0


def test_a_missing_account_is_marked_once_and_set_ok_when_it_is_back(house: House) -> None:
    side = house.sandbox.customer
    resource = house.settled(house.project(ada="ada01"))
    other = house.settled(house.project("other", bob="bob01"))
    name = resource.backend_id
    house.slurm.run(["sacctmgr", "-i", "remove", "account", "where", f"name={name}"])
    assert house.sync().failed
    assert side.current(resource).state == "Erred"
    assert name in side.current(resource).error_message
    assert side.current(other).state == "OK"
    house.sync()
    assert house.sandbox.requests.count("*_set_as_erred") == 1
    words = [f"name={name}", "parent=p_climate", "organization=p_climate"]
    house.slurm.run(["sacctmgr", "-i", "add", "account", *words])
    assert not house.sync().failed
    assert side.current(resource).state == "OK"
    assert house.members_of(resource) == {"ada01"}


def test_a_cluster_without_any_of_the_accounts_marks_nothing(house: House) -> None:
    resources = [house.settled(house.project(f"p{n}", ada="ada01")) for n in range(12)]
    with house.slurm.change() as state:
        for resource in resources:
            del state.accounts[resource.backend_id]
    report = house.sync()
    assert "right cluster" in " ".join(report.failures)
    assert house.sandbox.requests.count("*_set_as_erred") == 0


@pytest.mark.parametrize(("minutes", "renewals"), [(45, 0), (55, 1)])
def test_the_sync_mark_is_renewed_only_when_it_is_old(
    house: House, minutes: int, renewals: int
) -> None:
    resource = house.settled(house.project(ada="ada01"))
    synced = datetime.now(UTC) - timedelta(minutes=minutes)
    house.sandbox.customer.edit(resource, last_sync=synced)
    house.sync()
    assert house.sandbox.requests.count("*_refresh_last_sync") == renewals


def test_a_token_for_the_members_only_still_does_its_work(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    resource = house.settled(project)
    for call in ("set_backend_metadata", "refresh_last_sync", "set_limits", "set_as_ok"):
        house.sandbox.faults.add(f"*_{call}", "status", status=403, times=None)
    side.add_member(project, house.person("bob", "bob01"))
    side.set_flags(resource, paused=True)
    house.sync()
    assert house.members_of(resource) == {"ada01", "bob01"}


def test_an_account_whose_qos_cannot_be_kept_in_waldur_is_not_restricted(house: House) -> None:
    resource = house.settled(house.project(ada="ada01"))
    account = house.slurm.state.accounts[resource.backend_id]
    before = list(account.qos)
    house.sandbox.faults.add("*_set_backend_metadata", "status", status=403, times=1)
    house.sandbox.customer.set_flags(resource, paused=True)
    assert "cannot be kept in Waldur" in " ".join(house.sync().failures)
    assert house.slurm.state.accounts[resource.backend_id].qos == before
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    house.sandbox.customer.set_flags(resource, paused=False)
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == before


def test_two_resources_on_one_account_share_their_members(house: House) -> None:
    side = house.sandbox.customer
    first = house.settled(house.project("one", ada="ada01"))
    second = house.settled(house.project("two", bob="bob01"))
    side.edit(second, backend_id=first.backend_id)
    side.set_flags(first, paused=True)
    house.sync()
    assert house.members_of(first) == {"ada01", "bob01"}
    assert house.slurm.state.accounts[first.backend_id].qos in ([], ["normal"])


@pytest.mark.parametrize("version", ["7.7.9", "7.9.0", "8.0.5", "8.1.3"])
def test_every_generation_of_servers_is_served(
    tmp_path_factory: pytest.TempPathFactory, version: str
) -> None:
    with a_house(tmp_path_factory.mktemp("h") / "lock", version) as house:
        side, project = house.sandbox.customer, house.project(ada="ada01")
        resource = house.settled(project)
        side.add_member(project, house.person("bob", "bob01"))
        side.remove_member(project, "ada")
        report = house.sync()
        assert not report.failed, report.failures
        assert house.members_of(resource) == {"bob01"}
        house.forget()
        house.sync()
        assert house.sandbox.requests.writes() == []
