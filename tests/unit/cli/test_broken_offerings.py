"""A mistake within one offering stops that offering only, and is never quiet."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from harness import Installation

UNKNOWN: dict[str, Any] = {"order_processing_backend": "slrum"}
NOT_FOUND = 'no backend "slrum" is installed; did you mean "slurm"? installed: moab, slurm'
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "unknown backend": (UNKNOWN, f"offerings[1].order_processing_backend: {NOT_FOUND}"),
    "unknown backend in an older file": (
        {"order_processing_backend": ..., "backend_type": "SLRUM"},
        f"offerings[1].backend_type: {NOT_FOUND}",
    ),
    "bad backend_settings": (
        {"backend_settings": {"custmer_prefix": "c_"}},
        'offerings[1].backend_settings.custmer_prefix: unknown key; did you mean "customer_prefix"',
    ),
    "token not in the environment": (
        {"waldur_api_token": "${NOT_SET_ANYWHERE}"},
        "offerings[1].waldur_api_token: the environment variable NOT_SET_ANYWHERE is not set",
    ),
    "unknown key": (
        {"reportng_backend": "slurm"},
        'offerings[1].reportng_backend: unknown key; did you mean "reporting_backend"?',
    ),
    "no offering UUID": (
        {"waldur_offering_uuid": ...},
        "offerings[1].waldur_offering_uuid: is missing; it is required here",
    ),
}


def write(installation: Installation, change: dict[str, Any], **top_level: Any) -> None:
    """A file whose first offering is sound and whose second one is not."""
    second = {"name": "Second", "waldur_offering_uuid": uuid.uuid4().hex} | change
    installation.write_offerings({}, second, **top_level)


@pytest.mark.parametrize("kind", BROKEN)
def test_the_other_offering_is_served_and_the_exit_code_says_that_not_all_is_well(
    installation: Installation, kind: str
) -> None:
    change, message = BROKEN[kind]
    write(installation, change)
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    done = installation.run("--once")
    assert done.code == 1
    assert testbed.state(order) == "done"
    assert "offering not served: its configuration is invalid" in done.err
    assert message in done.err
    assert f"{installation.file}:" in done.err


@pytest.mark.parametrize("kind", BROKEN)
def test_nothing_is_said_of_it_when_another_offering_is_asked_for(
    installation: Installation, kind: str
) -> None:
    write(installation, BROKEN[kind][0])
    done = installation.run("--once", "--offering", "Test cluster")
    assert done.code == 0, done.err
    assert "Second" not in done.err


@pytest.mark.parametrize("kind", BROKEN)
def test_nothing_is_left_when_only_it_is_asked_for(installation: Installation, kind: str) -> None:
    change, message = BROKEN[kind]
    write(installation, change)
    done = installation.run("--once", "--offering", "Second")
    assert done.code == 2
    assert message in done.err


def test_config_check_reports_every_error_of_every_offering(installation: Installation) -> None:
    write(installation, UNKNOWN | {"reportng_backend": "slurm"})
    entries = [UNKNOWN | {"name": "First", "reporting_backend": "slrum"}]
    entries += [
        change | {"name": kind}
        for kind, (change, _) in BROKEN.items()
        if "waldur_offering_uuid" not in change
    ]
    for entry in entries:
        entry.setdefault("waldur_offering_uuid", uuid.uuid4().hex)
    installation.write_offerings(*entries)
    for command, arguments in (
        ("waldur-site-agent", ["config", "check"]),
        ("waldur-site-agent", ["config", "check", "--show"]),
        ("waldur_site_agent", ["--check-config"]),
    ):
        done = installation.run(*arguments, command=command)
        assert done.code == 2
        assert done.out == ""
        assert f"offerings[0].reporting_backend: {NOT_FOUND}" in done.err
        for number, (_, message) in enumerate(list(BROKEN.values())[:-1], start=1):
            assert message.replace("[1]", f"[{number}]") in done.err


def test_a_plan_shows_what_it_cannot_plan(installation: Installation) -> None:
    write(installation, UNKNOWN)
    done = installation.run("plan", command="waldur-site-agent")
    assert done.code == 1
    first, second = done.out.split("== Second")
    assert "No changes." in first
    assert NOT_FOUND in second


def test_a_broken_report_leaves_the_orders_of_the_same_offering(
    installation: Installation,
) -> None:
    installation.write(reporting_backend="slrum", membership_sync_backend="slurm")
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    done = installation.run("-m", "all", "--once")
    assert done.code == 1
    assert testbed.state(order) == "done"
    assert f"offerings[0].reporting_backend: {NOT_FOUND}" in done.err


@pytest.mark.parametrize(
    "command",
    [["components", "load"], ["users", "sync"], ["limits", "sync"], ["homedirs", "create"]],
    ids=" ".join,
)
def test_other_commands_do_what_they_can_and_exit_with_one(
    installation: Installation, command: list[str]
) -> None:
    second = {"name": "Second", "waldur_offering_uuid": uuid.uuid4().hex, "bogus": "1"}
    first = {"membership_sync_backend": "slurm"}
    installation.write_offerings(first, second)
    done = installation.run(*command, "--dry-run", command="waldur-site-agent")
    assert done.code == 1
    assert done.out.startswith("Test cluster:\n")
    assert "offerings[1].bogus: unknown key" in done.err
    assert done.err.endswith('skipped because of this: "Second"\n')


def test_a_diagnosis_shows_it_as_a_failed_check(installation: Installation) -> None:
    write(installation, {"bogus": "1"})
    done = installation.run("diagnose", "--output", "json", command="waldur-site-agent")
    assert done.code == 1
    found = {part["name"]: part["checks"] for part in json.loads(done.out)["offerings"]}
    (check,) = found["Second"]
    assert (check["name"], check["verdict"]) == ("configuration", "failed")
    assert "offerings[1].bogus: unknown key" in check["detail"]
    assert len(found["Test cluster"]) > 5


def test_config_check_says_who_does_what_and_ends_with_a_count(
    installation: Installation,
) -> None:
    second = {
        "name": "Second",
        "waldur_offering_uuid": uuid.uuid4().hex,
        "order_processing_backend": "moab",
        "backend_settings": {},
        "username_management_backend": "template",
        "username_management_settings": {"pattern": "{last_name}"},
    }
    installation.write_offerings({"reporting_backend": "slurm"}, second)
    done = installation.run("config", "check", command="waldur-site-agent")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "Test cluster: order_process, report with slurm",
        "Second: order_process with moab; usernames with template",
        "ok: 2 offerings, 3 backends",
    ]
