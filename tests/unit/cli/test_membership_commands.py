"""membership_sync and its parts as an administrator types them."""

from __future__ import annotations

from harness import Installation


def ready(installation: Installation) -> None:
    installation.write(membership_sync_backend="slurm")


def test_all_modes_run_in_one_process(installation: Installation) -> None:
    ready(installation)
    testbed = installation.testbed
    project = testbed.project(ada="ada01")
    resource = testbed.created(project)
    testbed.sandbox.customer.add_member(project, testbed.person("bob", "bob01"))
    order = testbed.order(project, "second")
    done = installation.run("-m", "all", "--once")
    assert done.code == 0, done.err
    assert testbed.state(order) == "done"
    assert testbed.members_of(resource) == {"ada01", "bob01"}


def test_a_mode_that_no_offering_takes_part_in_says_what_to_set(
    installation: Installation,
) -> None:
    done = installation.run("-m", "event_process", "--once")
    assert done.code == 2
    assert "and stomp_enabled or mqtt_enabled" in done.err


def test_the_plan_of_a_membership_cycle_reads_as_promised(installation: Installation) -> None:
    ready(installation)
    testbed = installation.testbed
    project = testbed.project("climate", ada="ada01", bob="bob01")
    resource = testbed.settled(project, "Ocean", cpu=10, mem=2)
    testbed.sandbox.customer.remove_member(project, "bob")
    testbed.sandbox.customer.add_member(project, testbed.person("cyd", "cyd01"))
    assert installation.run("plan", "-m", "membership_sync", command="waldur-site-agent").out == (
        f"{resource.backend_id}  Ocean (project climate)\n"
        "  - bob01          is no longer in the project's team\n"
        "  + cyd01          is in the project's team\n"
        "Plan: 1 to add, 1 to remove, 0 to change; 0 resources unchanged.\n"
    )


def test_a_name_in_waldur_cannot_forge_a_line_of_the_plan(installation: Installation) -> None:
    ready(installation)
    testbed = installation.testbed
    project = testbed.project(ada="ada01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.edit(resource, name="x\n  - root  forged\x1b[31m")
    testbed.sandbox.customer.add_member(project, testbed.person("cyd", "cyd01"))
    out = installation.run("-m", "membership_sync", "--dry-run").out
    assert "\x1b" not in out
    assert not any(line.startswith("  - root") for line in out.splitlines())


def test_limits_are_reported_by_command_and_only_where_they_differ(
    installation: Installation,
) -> None:
    ready(installation)
    testbed = installation.testbed
    resource = testbed.created(testbed.project(ada="ada01"), cpu=10)
    modify = ["sacctmgr", "-i", "modify", "account", "where", f"name={resource.backend_id}"]
    testbed.slurm.run([*modify, "set", "GrpTRESMins=cpu=900000"])
    command = "waldur_sync_resource_limits"
    assert "cpu 10 -> 15" in installation.run("--dry-run", command=command).out
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 10}
    done = installation.run(command=command)
    assert done.code == 0, done.err
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 15}
    assert "nothing to do" in installation.run(command=command).out


def test_home_directories_are_made_by_command_only_where_the_site_wants_them(
    installation: Installation,
) -> None:
    settings = installation.backend_settings | {"enable_user_homedir_account_creation": False}
    installation.write(membership_sync_backend="slurm", backend_settings=settings)
    done = installation.run(command="waldur_site_create_homedirs")
    assert done.code == 1
    assert "does not create home directories" in done.out


def test_the_plan_shows_a_limit_of_the_account_as_it_is_and_as_it_was_sold(
    installation: Installation,
) -> None:
    installation.write(membership_sync_backend="slurm", limits="waldur")
    testbed = installation.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=120, mem=2)
    modify = ["sacctmgr", "-i", "modify", "account", "where", f"name={resource.backend_id}"]
    testbed.slurm.run([*modify, "set", "GrpTRESMins=cpu=720000,mem=-1"])
    out = installation.run("plan", "-m", "membership_sync", command="waldur-site-agent").out
    assert "  ~ limit          cpu 720000 -> 7200000  sold in Waldur: 120 k-Hours\n" in out
    assert "  ~ limit          mem none -> 122880  sold in Waldur: 2 GB-hours\n" in out
    assert "Plan: 0 to add, 0 to remove, 2 to change; 0 resources unchanged.\n" in out


def test_limits_are_set_by_command_on_the_side_that_is_named(installation: Installation) -> None:
    ready(installation)
    testbed = installation.testbed
    resource = testbed.created(testbed.project(ada="ada01"), cpu=10, mem=2)
    modify = ["sacctmgr", "-i", "modify", "account", "where", f"name={resource.backend_id}"]
    testbed.slurm.run([*modify, "set", "GrpTRESMins=cpu=900000"])
    words = ("limits", "sync", "--to", "backend")
    planned = installation.run(*words, "--dry-run", command="waldur-site-agent")
    change = "limit cpu 900000 -> 600000 (sold in Waldur: 10 k-Hours)"
    assert f"would be done: {resource.backend_id}  on the account: {change}\n" in planned.out
    assert testbed.slurm.state.accounts[resource.backend_id].limits["cpu"] == 900000
    done = installation.run(*words, command="waldur-site-agent")
    assert done.code == 0, done.err
    assert testbed.slurm.state.accounts[resource.backend_id].limits["cpu"] == 600000
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}
    assert "nothing to do" in installation.run(*words, command="waldur-site-agent").out
