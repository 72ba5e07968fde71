"""What an administrator does to a running service."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from harness import eventually
from systemd.conftest import CONFIGURATION, LOG, RUN, UNITS, USER, Services, run
from waldur_site_agent.service.session import MODE_NAMES

SINGLE = [mode for mode in MODE_NAMES if mode != "all"]


@pytest.mark.guarantee("security: The services")
@pytest.mark.parametrize("options", [(), ("--legacy",)], ids=["as installed", "legacy"])
def test_a_reload_reads_the_configuration_again_in_the_same_process(
    services: Services, options: tuple[str, ...]
) -> None:
    unit = services.install(*options)
    unit.systemctl("start")
    eventually(services.testbed.sandbox.requests.count, "a first request")
    pid = unit.pid
    services.write({"journal": f"{LOG}/journal.jsonl"})
    unit.systemctl("reload")
    eventually(lambda: "configuration reloaded" in services.log_of(unit), "the reload")
    services.wait_for(services.testbed.order(services.testbed.project(ada="ada01")))
    assert "CreateResource" in {entry["action"] for entry in services.entries()}
    services.write(waldur_offering_uuid="nonsense")
    unit.systemctl("reload")
    eventually(lambda: "the old one stays in force" in services.log_of(unit), "a refusal")
    services.wait_for(services.testbed.order(services.testbed.project(ada="ada01"), "second"))
    assert (unit.pid, unit["NRestarts"]) == (pid, "0")


@pytest.mark.guarantee("security: The services")
@pytest.mark.parametrize("options", [(), ("--legacy",)], ids=["as installed", "legacy"])
def test_all_modes_in_one_process_and_single_modes_exclude_each_other(
    services: Services, options: tuple[str, ...]
) -> None:
    services.install(*options)
    every, singles = services.unit(), [services.unit(mode) for mode in SINGLE]
    polling = [unit for unit in singles if "event" not in unit.name]
    for unit in polling:
        unit.systemctl("start")
    assert all(unit.is_("active") for unit in polling)
    every.systemctl("start")
    assert every.is_("active")
    assert [unit["ActiveState"] for unit in polling] == ["inactive"] * len(polling)
    polling[0].systemctl("start")
    assert (polling[0].is_("active"), every.is_("active")) == (True, False)
    assert {unit["Result"] for unit in (every, *polling)} == {"success"}


@pytest.mark.guarantee("security: The services")
@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("options", [(), ("--user", USER)], ids=["root", "ordinary user"])
def test_logrotate_moves_the_journal_and_no_entry_is_lost(
    services: Services, options: tuple[str, ...]
) -> None:
    unit = services.install(*options, mode="all")
    services.write({"journal": f"{LOG}/journal.jsonl"})
    unit.systemctl("start")
    project = services.testbed.project(ada="ada01")
    services.wait_for(services.testbed.order(project, "first"))
    before = (LOG / "journal.jsonl").read_bytes()
    done = run("logrotate", "--force", "--verbose", "/etc/logrotate.d/waldur-site-agent")
    assert "error" not in done.stderr
    assert (LOG / "journal.jsonl.1").read_bytes().startswith(before)
    eventually(lambda: "reloaded" in unit.log, "a reload")
    services.wait_for(services.testbed.order(project, "second"))
    old = len((LOG / "journal.jsonl.1").read_bytes().splitlines())
    assert "CreateResource" in {entry["action"] for entry in services.entries()}
    run("logrotate", "--force", "/etc/logrotate.d/waldur-site-agent")
    with gzip.open(LOG / "journal.jsonl.2.gz") as rotated:
        assert len(rotated.read().splitlines()) == old
    assert {path.owner() for path in LOG.iterdir()} == {services.user}


def test_logrotate_copies_the_log_of_a_legacy_service_that_goes_on_writing(
    services: Services,
) -> None:
    unit = services.install("--legacy", mode="all")
    unit.systemctl("start")
    project = services.testbed.project(ada="ada01")
    for name in ("first", "second"):
        services.testbed.order(project, name)
        done = f"resource={name} type=Create"
        eventually(lambda: done in services.log_of(unit), "the log of the order")  # noqa: B023 - at once
        run("logrotate", "--force", "/etc/logrotate.d/waldur-site-agent")
        with gzip.open(LOG / "waldur-agent.log.1.gz") as rotated:
            assert done.encode() in (text := rotated.read())
        assert b"\0" not in text
    assert b"resource=first type=Create" not in text


def test_a_configuration_in_another_directory_has_its_own_environment_file(
    services: Services,
) -> None:
    elsewhere = CONFIGURATION / "second" / "config.yaml"
    elsewhere.parent.mkdir()
    services.write()
    for name in ("config.yaml", "environment"):
        (CONFIGURATION / name).rename(elsewhere.with_name(name))
    unit = services.install("--config-file", str(elsewhere), mode="all")
    unit.systemctl("start")
    services.wait_for(services.testbed.order(services.testbed.project(ada="ada01")))


def test_what_is_enabled_starts_with_the_machine(services: Services) -> None:
    unit = services.install()
    unit.systemctl("enable")
    assert (UNITS / "multi-user.target.wants" / unit.name).is_symlink()
    run("systemctl", "start", "multi-user.target")  # the target of the boot
    eventually(lambda: unit.is_("active"), "the start")
    unit.systemctl("disable", "--now")
    assert not (UNITS / "multi-user.target.wants" / unit.name).exists()


@pytest.mark.usefixtures("ordinary_user")
def test_a_switch_from_root_to_an_ordinary_user_takes_the_directories_over(
    services: Services,
) -> None:
    settings = {"journal": f"{LOG}/journal.jsonl", "health_file": f"{RUN}/health.json"}
    services.write(settings)
    unit = services.install(mode="all")
    unit.systemctl("start")
    services.wait_for(services.testbed.order(services.testbed.project(ada="ada01"), "first"))
    unit.systemctl("stop")
    unit = services.install("--user", USER, "--force", mode="all")
    services.write(settings)
    unit.systemctl("start")
    services.wait_for(services.testbed.order(services.testbed.project(ada="ada01"), "second"))
    assert {path.owner() for path in LOG.iterdir()} == {USER}


def test_systemd_finds_nothing_wrong(services: Services) -> None:
    services.install()
    units = [UNITS / services.unit(mode).name for mode in MODE_NAMES]
    done = run("systemd-analyze", "verify", "--man=no", *units)
    assert [line for line in done.stderr.splitlines() if "waldur-agent" in line] == []


@pytest.mark.guarantee("security: Threat model")
def test_logrotate_touches_nothing_that_the_agents_user_links_to(
    services: Services, ordinary_user: str, tmp_path: Path
) -> None:
    services.install("--user", ordinary_user, mode="all")
    LOG.mkdir(exist_ok=True)
    run("chown", f"{ordinary_user}:{ordinary_user}", LOG)
    LOG.chmod(0o750)
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    victim.chmod(0o600)
    before = victim.stat()
    (LOG / "link.jsonl").symlink_to(victim)
    (LOG / "link.log").symlink_to(victim)
    (LOG / "journal.jsonl").write_text("{}\n")
    (LOG / "journal.jsonl.1").symlink_to(victim)
    (LOG / "journal.jsonl.2.gz").symlink_to(tmp_path / "new")
    for _ in range(3):
        run("logrotate", "--force", "/etc/logrotate.d/waldur-site-agent", check=False)
    after = victim.stat()
    assert victim.read_text() == "precious\n"
    assert (before.st_mode, before.st_uid, before.st_mtime) == (
        after.st_mode,
        after.st_uid,
        after.st_mtime,
    )
    assert not (tmp_path / "new").exists()
