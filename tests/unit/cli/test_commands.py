"""The commands as an administrator types them."""

from __future__ import annotations

import json

import yaml

from harness import Installation


def test_once_carries_out_orders_and_exits_with_zero(installation: Installation) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    done = installation.run("--once")
    assert done.code == 0, done.err
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}
    assert "order done" in done.err


def test_the_token_is_never_printed(installation: Installation) -> None:
    testbed = installation.testbed
    testbed.order(testbed.project(ada="ada01"))
    file = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(file | {"log_level": "debug"}))
    for arguments in (["--once"], ["--check-config"], ["--dry-run"]):
        done = installation.run(*arguments)
        assert done.code == 0, done.err
        assert testbed.sandbox.token not in done.out + done.err


def test_a_dry_run_prints_the_plan_and_changes_nothing(installation: Installation) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project("climate", ada="ada01"), "Ocean", cpu=10, mem=1)
    done = installation.run("--dry-run")
    assert done.code == 0, done.err
    name = f"a_{testbed.resource(order).slug}"
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{name}  Ocean (project climate): Create order")
    assert lines[1] == f'  + account        c_uni > p_climate > {name}  ordered as "Ocean"'
    assert lines[2] == "  ~ limit          cpu none -> 600000  with the account"
    assert lines[3] == "  ~ limit          mem none -> 61440  with the account"
    assert lines[4] == "  + ada01          in the team of project climate"
    assert lines[5].startswith(
        "  ~ in Waldur      order pending-provider -> executing  Create order"
    )
    assert lines[6] == f"  ~ in Waldur      backend_id none -> {name}  name of the account"
    assert lines[7].startswith("  ~ in Waldur      order executing -> done  Create order")
    assert lines[-1] == "Plan: 2 to add, 0 to remove, 2 to change, 3 in Waldur; 1 orders."
    assert testbed.sandbox.requests.writes() == []
    assert testbed.state(order) == "pending-provider"
    assert installation.run("plan", command="waldur-site-agent").out == done.out


def test_a_dry_run_with_nothing_to_do_says_so(installation: Installation) -> None:
    assert installation.run("--dry-run").out == "No changes.\n"


def test_an_order_that_fails_gives_exit_code_one(installation: Installation) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project("bad,slug", ada="ada01"))
    done = installation.run("--once")
    assert done.code == 1
    assert testbed.state(order) == "erred"
    assert "bad,slug" in done.err


def test_a_wrong_configuration_gives_exit_code_two_and_the_place(
    installation: Installation,
) -> None:
    installation.write(backend_settings=installation.backend_settings | {"defualt_account": "x"})
    for arguments in (["--once"], ["--check-config"], []):
        done = installation.run(*arguments)
        assert done.code == 2
        assert "backend_settings.defualt_account: unknown key" in done.err
        assert 'did you mean "default_account"?' in done.err


def test_a_backend_that_is_not_installed_is_named(installation: Installation) -> None:
    installation.write(order_processing_backend="pbs")
    done = installation.run("--once")
    assert done.code == 2
    assert 'no backend "pbs" is installed; installed: moab, slurm' in done.err


def test_check_config_prints_the_resolved_file(installation: Installation) -> None:
    for command, arguments in (
        ("waldur_site_agent", ["--check-config"]),
        ("waldur-site-agent", ["config", "check", "--show"]),
    ):
        done = installation.run(*arguments, command=command)
        assert done.code == 0, done.err
        printed = yaml.safe_load(done.out)
        assert printed["offerings"][0]["username_management_backend"] == "base"
        assert printed["offerings"][0]["waldur_api_token"] == "********"
        assert printed["events"]["full_pass_minutes"] == 60


def test_check_config_shows_the_defaults_of_the_backend_too(installation: Installation) -> None:
    done = installation.run("config", "check", "--show", command="waldur-site-agent")
    (offering,) = yaml.safe_load(done.out)["offerings"]
    assert offering["backend_settings"]["qos_default"] == "normal"
    assert offering["backend_settings"]["require_system_user"] is False


def test_a_plan_of_orders_says_who_waits_until_the_system_knows_them(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    testbed.order(testbed.project(ada="nobody-knows-ada", root="daemon"))
    installation.write(
        backend_settings=installation.backend_settings | {"require_system_user": True}
    )
    done = installation.run("plan", command="waldur-site-agent")
    assert "    waiting until the system knows them: nobody-knows-ada\n" in done.out
    assert "  + daemon         in the team" in done.out
    assert "+ nobody-knows-ada" not in done.out
    assert "Plan: 2 to add" in done.out
    done = installation.run("plan", "--output", "json", command="waldur-site-agent")
    assert json.loads(done.out)[0]["orders"][0]["waiting"] == ["nobody-knows-ada"]


def test_a_plan_of_all_modes_says_which_part_is_about_what(installation: Installation) -> None:
    installation.write(membership_sync_backend="slurm", reporting_backend="slurm")
    done = installation.run("plan", "-m", "all", command="waldur-site-agent")
    assert [line for line in done.out.splitlines() if line.startswith("==")] == [
        "== Test cluster: orders ==",
        "== Test cluster: members ==",
        "== Test cluster: usage ==",
    ]


def test_settings_without_effect_are_named_once(installation: Installation) -> None:
    installation.write_offerings(
        {"reporting_backend": "slurm", "resource_import_enabled": True, "stomp_enabled": False},
        {
            "name": "By events",
            "waldur_offering_uuid": "11111111111141119111111111111111",
            "order_processing_backend": ...,
            "reporting_backend": "slurm",
            "mqtt_enabled": True,
        },
        sentry_dsn="https://key@sentry.example.com/1",
        metrics_listen="",
    )
    for arguments in (["--once"], ["--check-config"]):
        done = installation.run(*arguments)
        assert done.code == 0, done.err
        first, second = [line for line in done.err.splitlines() if "has no effect" in line]
        assert "offering='Test cluster'" in first
        assert "setting=resource_import_enabled" in first
        assert "remedy='set membership_sync_backend'" in first
        assert "offering='By events'" in second
        assert "setting=mqtt_enabled" in second
        assert "key@sentry" not in done.err


def test_a_file_without_unused_settings_gives_no_warning(installation: Installation) -> None:
    installation.write(order_processing_backend=..., backend_type="slurm")
    assert installation.run("--check-config").err == ""


def test_an_offering_can_be_chosen_by_name_or_uuid(installation: Installation) -> None:
    uuid = installation.testbed.sandbox.offering.uuid
    assert installation.run("--dry-run", "--offering", "Test cluster").code == 0
    assert installation.run("--dry-run", "--offering", uuid).code == 0
    done = installation.run("--dry-run", "--offering", "Other")
    assert done.code == 2
    assert 'has no offering "Other"; it has "Test cluster"' in done.err


def test_an_offering_that_events_serve_is_left_to_them(installation: Installation) -> None:
    installation.write(stomp_enabled=True)
    done = installation.run("--once")
    assert done.code == 2
    assert "takes part in mode order_process" in done.err


def test_a_period_that_is_no_number_is_refused(installation: Installation) -> None:
    installation.variables["WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES"] = "often"
    done = installation.run()
    assert done.code == 2
    assert 'PERIOD_MINUTES is "often"; give a positive number' in done.err


def test_load_components_creates_updates_and_then_leaves_alone(
    installation: Installation,
) -> None:
    components = {
        "cpu": {
            "measured_unit": "k-Hours",
            "unit_factor": 60000,
            "accounting_type": "limit",
            "label": "Cores",
        },
        "gres/gpu": {
            "measured_unit": "GPU-hours",
            "unit_factor": 60,
            "accounting_type": "usage",
            "label": "GPU",
        },
    }
    installation.write(backend_components=components)
    done = installation.run(command="waldur_site_load_components")
    assert done.code == 0, done.err
    assert "+ gres/gpu  name: GPU; measured_unit: GPU-hours; billing_type: usage" in done.out
    assert "~ cpu  name: CPU -> Cores" in done.out
    assert "? mem  only in Waldur; left unchanged" in done.out
    found = {c.type: c for c in installation.testbed.sandbox.offering.components}
    assert (found["cpu"].name, found["gres/gpu"].unit_factor) == ("Cores", 60)
    installation.testbed.sandbox.requests.clear()
    again = installation.run(command="waldur_site_load_components")
    assert again.code == 0
    assert installation.testbed.sandbox.requests.writes() == []


def test_diagnostics_pass_on_a_healthy_site(installation: Installation) -> None:
    done = installation.run(command="waldur_site_diagnostics")
    assert done.code == 0, done.out
    assert "FAILED" not in done.out
    assert 'ok       rights: CUSTOMER.OWNER of the provider "Example Computing Centre"' in done.out


def test_diagnostics_fail_with_a_remedy(installation: Installation) -> None:
    testbed = installation.testbed
    installation.write(
        waldur_api_token=testbed.sandbox.customer.add_user("stranger").token,
        backend_settings=installation.backend_settings | {"qos_paused": "no-such-qos"},
    )
    done = installation.run(command="waldur_site_diagnostics")
    assert done.code == 1
    assert "FAILED   Waldur" in done.out
    assert "no-such-qos" in done.out
    assert "->" in done.out


def test_json_logs_carry_offering_order_and_resource(installation: Installation) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"), "Ocean")
    file = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(file | {"log_format": "json"}))
    done = installation.run("--once")
    lines = [json.loads(line) for line in done.err.splitlines()]
    (line,) = [line for line in lines if line["event"] == "order done"]
    assert line["offering"] == "Test cluster"
    assert line["order"].replace("-", "") == order.uuid
    assert line["resource"] == "Ocean"
    assert line["level"] == "info"


def test_the_version_names_agent_plugins_and_python(installation: Installation) -> None:
    out = installation.run("--version").out
    assert out.startswith("waldur-site-agent 2.")
    assert "backend slurm: waldur-site-agent-slurm 2." in out
    assert "Python 3." in out


def test_a_plan_tells_of_refusal_by_its_exit_code_only_when_asked(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    installation.write(membership_sync_backend="slurm", safety={"max_removals": 0})
    project = testbed.project(ada="ada01")
    testbed.created(project)
    testbed.sandbox.customer.remove_member(project, "ada")
    words = ("plan", "-m", "membership_sync", "--output", "json")
    plain = installation.run(*words, command="waldur-site-agent")
    assert plain.code == 0, plain.err
    (report,) = json.loads(plain.out)
    assert report["refused"][0]["members"] == ["ada01"]
    assert installation.run(*words, "--exit-code", command="waldur-site-agent").code == 3
    assert installation.run("-m", "membership_sync", "--once").code == 3


def test_diagnostics_compare_every_configured_field_of_a_component(
    installation: Installation,
) -> None:
    cpu = {"measured_unit": "k-Hours", "unit_factor": 60000, "accounting_type": "limit"}
    installation.write(backend_components={"cpu": {**cpu, "label": "CPU", "max_value": "2.5"}})
    done = installation.run(command="waldur_site_diagnostics")
    assert "WARNING  component cpu: max_value: none -> 2.5" in done.out
