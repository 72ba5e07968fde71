"""Usage as commands: the mode, its plan, ``usage show`` and ``usage load``."""

from __future__ import annotations

import csv
import io
import json
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import yaml

from harness import Installation
from waldur_site_agent.cli import usage
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent_sandbox import Resource

COMMAND = "waldur-site-agent"
LAST = BillingMonth.of(datetime.now(UTC), UTC).previous
BEFORE = LAST.previous
SPAN = ("--from", str(BEFORE), "--to", str(LAST))


@pytest.fixture
def ocean(installation: Installation) -> Resource:
    """A resource that used 2 and 3 units in the last two months, and nothing in this one."""
    testbed = installation.testbed
    installation.write_offerings({"reporting_backend": "slurm"}, timezone="UTC")
    made = testbed.created(testbed.project(ada="ada01", bob="bob01"), "Ocean")
    born = replace(made, created=BEFORE.period(UTC).start - timedelta(days=1))
    testbed.sandbox.customer.world.put(born)
    for month, user, hours in ((BEFORE, "ada01", 2), (LAST, "ada01", 1), (LAST, "bob01", 2)):
        start = month.period(UTC).start + timedelta(days=2)
        tres = {"cpu": 1000}
        testbed.slurm.run_job(user, made.backend_id, tres, start, start + timedelta(hours=hours))
    testbed.forget()
    return born


def test_the_mode_reports_and_says_beforehand_what_it_will_send(
    installation: Installation, ocean: Resource
) -> None:
    side = installation.testbed.sandbox.customer
    account = ocean.backend_id
    planned = installation.run("-m", "report", "--dry-run")
    assert planned.code == 0, planned.err
    assert planned.out == (
        f"{account}  Ocean in {LAST}\n"
        "  ~ cpu            none -> 3.00\n"
        "  ~ cpu by user    ada01 none -> 1.00, bob01 none -> 2.00\n"
        f"{account}  Ocean in {LAST.next}\n"
        "  ~ cpu            none -> 0.00\n"
        "  ~ mem            none -> 0.00\n"
        "Plan: 0 to add, 0 to remove, 4 to change; 0 resources unchanged.\n"
    )
    machine = installation.run("plan", "-m", "report", "--output", "json", command=COMMAND)
    (entry, _) = json.loads(machine.out)[0]["usage"]
    assert entry["components"]["cpu"]["users"] == {"ada01": "1.00", "bob01": "2.00"}
    assert entry["components"]["cpu"]["user_changes"] == {
        "ada01": {"before": None, "after": "1.00"},
        "bob01": {"before": None, "after": "2.00"},
    }
    assert installation.testbed.sandbox.requests.writes() == []
    done = installation.run("-m", "report", "--once")
    assert done.code == 0, done.err
    assert side.usages(ocean) == {"cpu": 0, "mem": 0}
    assert side.usages(ocean, str(LAST))["cpu"] == 3
    assert installation.run("-m", "report", "--dry-run").out == ("No changes.\n")


def test_parts_of_users_that_differ_are_in_plan_log_and_journal_though_the_total_agrees(
    installation: Installation, ocean: Resource
) -> None:
    journal = installation.directory / "journal.jsonl"
    content = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(content | {"journal": str(journal)}))
    side = installation.testbed.sandbox.customer
    assert installation.run("-m", "report", "--once").code == 0
    written = [json.loads(line) for line in journal.read_text().splitlines()]
    (parts,) = [entry for entry in written if entry["action"] == "set_user_usages"]
    assert [(c["field"], c["old"], c["new"]) for c in parts["changes"]] == [
        ("usage cpu of ada01", None, "1.00"),
        ("usage cpu of bob01", None, "2.00"),
    ]
    put_part(installation, ocean, "bob01", Decimal("0.56"))
    installation.testbed.sandbox.requests.clear()
    planned = installation.run("-m", "report", "--dry-run")
    assert planned.out == (
        f"{ocean.backend_id}  Ocean in {LAST}\n"
        "  ~ cpu by user    bob01 0.56 -> 2.00\n"
        "Plan: 0 to add, 0 to remove, 1 to change; 1 resources unchanged.\n"
    )
    assert installation.testbed.sandbox.requests.writes() == []
    done = installation.run("-m", "report", "--once")
    (line,) = [line for line in done.err.splitlines() if "told Waldur" in line]
    assert "usage cpu of bob01 0.56 -> 2.00 k-Hours" in line
    (entry,) = [json.loads(line) for line in journal.read_text().splitlines()[len(written) :]]
    assert (entry["uuid"].replace("-", ""), entry["about"], entry["result"]) == (
        str(ocean.uuid),
        ocean.backend_id,
        "done",
    )
    assert entry["changes"] == [
        {
            "field": "usage cpu of bob01",
            "old": "0.56",
            "new": "2.00",
            "unit": "k-Hours",
            "note": "",
        }
    ]
    assert side.user_usages(ocean, str(LAST)) == {"ada01": {"cpu": 1}, "bob01": {"cpu": 2}}
    assert installation.run("-m", "report", "--dry-run").out == "No changes.\n"


def put_part(
    installation: Installation, resource: Resource, username: str, amount: Decimal
) -> None:
    """Change one user's part of cpu in the last month in Waldur, behind the agent's back."""
    side = installation.testbed.sandbox.customer
    rows = {row.uuid for row in side.usage_rows(resource, str(LAST))}
    (part,) = [
        each
        for each in side.world.user_usages.values()
        if each.username == username and each.component_usage in rows
    ]
    side.world.put(replace(part, usage=amount))


def test_figures_are_shown_next_to_those_of_waldur_and_nothing_is_sent(
    installation: Installation, ocean: Resource
) -> None:
    testbed, account = installation.testbed, ocean.backend_id
    testbed.sandbox.customer.put_usage(ocean, "cpu", 5, str(BEFORE))
    shown = installation.run("usage", "show", *SPAN, command=COMMAND)
    assert shown.code == 0, shown.err
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["Test", "cluster:"]
    lower = "lower than in Waldur"
    expected = f"{BEFORE} {account} Ocean cpu (k-Hours) 2.00 5.00 -3.00 {lower}"
    assert lines[2] == expected.split()
    assert lines[4] == f"{LAST} {account} Ocean cpu (k-Hours) 3.00 none +3.00".split()
    arguments = ("usage", "show", "--month", str(LAST), "--resource", "Ocean", "--output")
    table = installation.run(*arguments, "csv", command=COMMAND).out
    rows = list(csv.DictReader(io.StringIO(table)))
    columns = ("component", "unit", "used", "in_waldur", "difference", "anomaly")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("cpu", "k-Hours", "3.00", "", "3.00", ""),
        ("mem", "GB-hours", "0.00", "", "0.00", ""),
    ]
    entries = json.loads(installation.run(*arguments, "json", command=COMMAND).out)
    users = [entry.pop("users") for entry in entries]
    assert users == [{"ada01": "1.00", "bob01": "2.00"}, {}]
    assert [{key: value or "" for key, value in entry.items()} for entry in entries] == rows
    assert testbed.sandbox.requests.writes() == []


def test_past_months_are_loaded_one_after_the_other_and_not_twice(
    installation: Installation, ocean: Resource
) -> None:
    side = installation.testbed.sandbox.customer
    dry = installation.run("usage", "load", *SPAN, "--dry-run", command=COMMAND)
    assert "would be sent" in dry.out
    assert installation.testbed.sandbox.requests.writes() == []
    done = installation.run("usage", "load", *SPAN, command=COMMAND)
    assert done.code == 0, done.err
    assert done.err == ""
    assert [line.split()[-3:] for line in done.out.splitlines()[2:]] == [
        ["none", "2.00", "sent"],
        ["none", "3.00", "sent"],
    ]
    assert [side.usages(ocean, str(month))["cpu"] for month in (BEFORE, LAST)] == [2, 3]
    assert side.user_usages(ocean, str(LAST)) == {"ada01": {"cpu": 1}, "bob01": {"cpu": 2}}
    installation.testbed.forget()
    again = installation.run("usage", "load", *SPAN, command=COMMAND)
    assert again.out.splitlines() == ["Test cluster:", "Waldur is up to date."]
    assert installation.testbed.sandbox.requests.writes() == []


def test_what_is_held_back_is_a_failure(installation: Installation, ocean: Resource) -> None:
    side = installation.testbed.sandbox.customer
    side.put_usage(ocean, "cpu", 50, str(LAST))
    loaded = installation.run("usage", "load", *SPAN, command=COMMAND)
    assert loaded.code == 1
    line = f"{ocean.backend_id} in {LAST}: cpu 3.00 is lower than 50.00 in Waldur; not sent"
    assert line in loaded.err
    side.put_usage(ocean, "cpu", 50)
    assert installation.run("-m", "report", "--once").code == 1
    arguments = ("usage", "show", "--month", str(LAST), "--output", "csv")
    shown = installation.run(*arguments, command=COMMAND)
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert [row["anomaly"] for row in rows] == ["lower than in Waldur", ""]


@pytest.fixture
def two(installation: Installation, ocean: Resource) -> Resource:
    """A resource of a second offering, which reports the same cluster's other accounts."""
    testbed = installation.testbed
    side, first = testbed.sandbox.customer, testbed.sandbox.offering
    second = replace(first, uuid=uuid.uuid4().hex, name="Second")
    made = testbed.created(testbed.project("lakes", "lakes", cyd="cyd01"), "Lake")
    lake = replace(made, offering=second.uuid, created=ocean.created)
    side.world.put(second)
    side.world.put(lake)
    testbed.forget()
    reporting = {"reporting_backend": "slurm"}
    other = {"name": "Second (2)", "waldur_offering_uuid": second.uuid}
    installation.write_offerings(reporting, reporting | other, timezone="UTC")
    return lake


@pytest.mark.usefixtures("two")
def test_a_resource_is_found_in_whichever_offering_has_it(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ("--month", str(LAST), "-c", str(installation.file))
    for name in ("Ocean", "Lake"):
        assert exit_code("show", "--resource", name, *config) == 0
        assert name in capsys.readouterr().out
    assert exit_code("show", "--resource", "nobody", *config) == 2
    assert exit_code("show", "--resource", "nobody", "--resource", "Lake", *config) == 1
    assert "there is no resource called nobody" in capsys.readouterr().err


@pytest.mark.usefixtures("two")
def test_each_offering_is_drawn_into_a_file_of_its_own(installation: Installation) -> None:
    file = installation.directory / "usage.svg"
    arguments = ("show", "--month", str(LAST), "--plot", str(file))
    assert exit_code(*arguments, "-c", str(installation.file)) == 0
    drawn = {each.name for each in installation.directory.glob("usage*.svg")}
    assert drawn == {"usage-test-cluster.svg", "usage-second-2.svg"}


def test_a_server_that_refuses_past_months_is_quoted(
    installation: Installation, ocean: Resource
) -> None:
    testbed = installation.testbed
    offering = testbed.sandbox.offering
    components = tuple(replace(c, billing_type="usage") for c in offering.components)
    testbed.sandbox.customer.world.put(replace(offering, components=components))
    done = installation.run("usage", "load", *SPAN, command=COMMAND)
    assert done.code == 1
    assert f"{BEFORE}: Waldur does not accept it with this token; use a staff token" in done.err
    assert str(LAST) not in done.err
    assert "not sent" in done.out
    assert testbed.sandbox.customer.usages(ocean, str(BEFORE)) == {}


def exit_code(*arguments: str) -> object:
    """Run a command of the group in this process."""
    with pytest.raises(SystemExit) as stopped:
        usage.usage_group.main(arguments, standalone_mode=True)
    return stopped.value.code


@pytest.mark.usefixtures("ocean")
def test_months_and_resources_that_are_not_there_are_usage_errors(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, word in (
        (("show", "--month", "2026-13"), "month"),
        (("show", "--month", "2999-01"), "is in the future"),
        (("show", "--from", "2026-01"), "must be used together"),
        (("show", "--resource", "nobody"), "nobody"),
        (("show", "--plot", "usage.doc"), ".svg or .png"),
        (("show", "--plot", "/nowhere/usage.svg"), "no such directory: /nowhere"),
        (("load", "--from", "2026-02", "--to", "2026-01"), "later than"),
    ):
        assert exit_code(*arguments, "-c", str(installation.file)) == 2, arguments
        assert word in capsys.readouterr().err
    assert installation.testbed.sandbox.requests.writes() == []


@pytest.mark.usefixtures("ocean")
def test_usage_is_drawn(installation: Installation) -> None:
    for name, beginning in (("usage.svg", b"<?xml"), ("usage.png", b"\x89PNG")):
        file = installation.directory / name
        arguments = ("show", "--month", str(LAST), "--plot", str(file))
        assert exit_code(*arguments, "-c", str(installation.file)) == 0
        assert file.read_bytes().startswith(beginning)


@pytest.mark.usefixtures("ocean")
def test_an_empty_plot_says_that_it_is_empty(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    file = installation.directory / "usage.svg"
    arguments = ("show", "--month", str(LAST.next), "--plot", str(file))
    assert exit_code(*arguments, "-c", str(installation.file)) == 0
    assert f"drawn: {file} (empty: no usage)" in capsys.readouterr().err
    assert file.read_text().count("<!-- no usage -->") == 2
    assert (
        exit_code("show", "--month", str(LAST), "--plot", str(file), "-c", str(installation.file))
        == 0
    )
    assert f"drawn: {file}\n" in capsys.readouterr().err
    assert file.read_text().count("<!-- no usage -->") == 1


@pytest.mark.usefixtures("ocean")
def test_a_missing_extra_is_named(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "waldur_site_agent.cli.usage_plot", raising=False)
    monkeypatch.delattr("waldur_site_agent.cli.usage_plot", raising=False)
    assert exit_code("show", "-c", str(installation.file), "--plot", "usage.png") == 2
    assert "waldur-site-agent[plot]" in capsys.readouterr().err
