"""A customer in Waldur: texts that attack terminals, logs, files and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import waldur_site_agent.cli
from harness import Installation, SimulatedSite
from harness.moab_testbed import a_simulated_moab_site
from waldur_site_agent.backends import AddMembers, Outcome, Result
from waldur_site_agent.backends.naming import Naming, plain_text, reserve_usernames
from waldur_site_agent.cli.output import json_text, say
from waldur_site_agent.cli.usage import Comparison, as_csv
from waldur_site_agent.config import Offering
from waldur_site_agent.config.settings import LogShipping
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import Component, Resource
from waldur_site_agent.model.text import printable
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.planning.usage import Bill, ComponentReport, MonthPlan, ResourceReport
from waldur_site_agent.service.journal import Journal
from waldur_site_agent.service.log_shipping import LogShipper
from waldur_site_agent.service.logs import configure_logs
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_budget.main import main as waldur_budget

CLEAR, CSI, REVERSED, HALF = "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "\u202etxt.exe", "\ud800"
FORGED = "\r\n2026-01-01T00:00:00Z [info     ] all is well"
HOSTILE = f"Ocean{CLEAR}{CSI}{REVERSED}\u200b\u2066\x7f{FORGED}"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def unprintable(text: str) -> set[str]:
    return {c for c in text if not c.isprintable()} - {"\n"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text(st.characters()))
def test_what_is_escaped_is_printable_can_be_encoded_and_is_otherwise_unchanged(text: str) -> None:
    escaped = printable(text)
    assert escaped.isprintable()
    escaped.encode()
    if text.isprintable():
        assert escaped == text


def test_commands_print_through_the_writer_that_escapes() -> None:
    (package,) = waldur_site_agent.cli.__path__
    # migrate gives back the site's own file, as it is, to be redirected into another
    apart = {"output.py", "migrate.py"}
    others = [path for path in Path(package).glob("*.py") if path.name not in apart]
    direct = re.compile(r"click\.s?echo|(?<!\w)print\(|stdout\.write|stderr\.write|ensure_ascii")
    assert [path.name for path in others if direct.search(path.read_text())] == []
    assert len(others) > 5


def test_a_command_prints_names_escaped_and_lines_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(f"first\nsecond {CLEAR}{CSI}{REVERSED}{HALF}")
    assert capsys.readouterr().out == (
        "first\nsecond \\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\u202etxt.exe\\ud800\n"
    )


def test_json_is_ascii() -> None:
    text = json_text({"name": HOSTILE + HALF})
    assert text.isascii()
    assert json.loads(text) == {"name": HOSTILE + HALF}


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_no_text_from_outside_reaches_a_log_raw(style: str, stream: type[io.StringIO]) -> None:
    output = stream()
    configure_logs("debug", style, output)
    log = structlog.get_logger()
    log.info(HOSTILE, name=HOSTILE + HALF, short="\x1b[8m", parts=[HOSTILE], error=ValueError(CSI))
    log.bind(offering=CLEAR).warning("bound")
    one_line_each = output.getvalue()
    log.error("failed", exc_info=ValueError(CLEAR + CSI + REVERSED + HALF))
    text = output.getvalue()
    text.encode()
    assert unprintable(COLOURS.sub("", text)) <= set()
    assert "[8m" not in COLOURS.findall(text)
    assert one_line_each.count("\n") == 2
    if stream is io.StringIO:
        assert "\x1b" not in text


def test_no_text_makes_waldur_refuse_a_batch_of_log_lines() -> None:
    offering = Offering(
        name="HPC",
        waldur_api_url="https://waldur.example.com/api/",
        waldur_api_token=SecretStr("x" * 40),
        waldur_offering_uuid=UUID(int=1),
    )

    def nowhere(_: Offering) -> Waldur:
        raise AssertionError

    shipper = LogShipper(LogShipping(send_names=True), [offering], nowhere)
    shipper.take({"level": "error", "event": "failed", "name": f"\0{HALF}{HOSTILE}"})
    (entry,), _ = shipper._shippers["HPC"].buffer.take()
    assert entry.message.isprintable()
    entry.message.encode()


def test_a_journal_line_never_fails_for_its_text(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    action = AddMembers(f"a{HALF}{CSI}", (HOSTILE + HALF,))
    outcome = Outcome(action, Result.FAILED, PermanentError(HALF + REVERSED))
    journal.of("Cluster", "order_process").record(Step(action, HALF), outcome)
    journal.close()
    (line,) = path.read_text(encoding="ascii").splitlines()
    assert json.loads(line)["members"] == [HOSTILE + HALF]
    assert unprintable(line) == set()


def everything_printed(installation: Installation) -> str:
    month = f"{datetime.now(UTC):%Y-%m}"
    commands: list[tuple[str, ...]] = [
        ("plan", "-m", "order_process"),
        ("plan", "-m", "order_process", "--output", "json"),
        ("run", "-m", "order_process", "--once"),
        ("plan", "-m", "membership_sync"),
        ("plan", "-m", "membership_sync", "--output", "json"),
        ("run", "-m", "membership_sync", "--once"),
        ("plan", "-m", "report"),
        ("run", "-m", "report", "--once"),
        *(
            ("usage", "show", "--from", month, "--to", month, "--output", how)
            for how in ("csv", "json", "text")
        ),
    ]
    said = ""
    for words in commands:
        done = installation.run(*words, command="waldur-site-agent")
        assert done.code in (0, 1), (words, done.err)
        assert "Traceback" not in done.err, (words, done.err)
        said += done.out + done.err
    return said


@pytest.mark.guarantee("security: Threat model")
def test_names_of_a_customer_reach_neither_terminal_nor_journal_raw(
    installation: Installation,
) -> None:
    testbed, journal = installation.testbed, installation.directory / "journal.jsonl"
    content: dict[str, Any] = yaml.safe_load(installation.file.read_text())
    content["offerings"][0] |= {
        "membership_sync_backend": "slurm",
        "reporting_backend": "slurm",
    }
    installation.file.write_text(yaml.safe_dump(content | {"journal": str(journal)}))
    project = testbed.project(ada="ada01")
    testbed.order(project, HOSTILE)
    said = everything_printed(installation)
    assert "Ocean" in said
    assert unprintable(said) == set()
    assert unprintable(journal.read_text()) == set()
    assert "all is well" not in {line.split("] ")[-1] for line in said.splitlines()}


FORMULAS = [
    "=1+1",
    "+1",
    "@SUM(A1)",
    "\uff1d1+1",
    "\ufe621",
    "\uff0d1",
    "\uff20SUM(A1)",
    " =1+1",
    "\t=1+1",
    "\r=1+1",
    "\xa0=1",
    "\u200b=1",
    "\ufeff=1",
]


@pytest.mark.parametrize("name", FORMULAS, ids=ascii)
def test_no_cell_of_a_csv_is_taken_for_a_formula(name: str) -> None:
    resource = Resource(uuid=UUID(int=1), name=name, state="OK", backend_id="run")
    usage = ComponentReport(type="cpu", bill=Bill(total=Decimal(-1)))
    report = ResourceReport(resource=resource, components=(usage,))
    plan = MonthPlan(month=BillingMonth(2026, 11), resources=(report,))
    components = {
        "cpu": Component(type="cpu", measured_unit="h", label="", accounting_type="usage")
    }
    text = as_csv([Comparison(offering="Cluster", plans=[plan], components=components)])
    (row,) = csv.DictReader(io.StringIO(text))
    assert unicodedata.normalize("NFKC", row["resource"]).lstrip("\ufeff\u200b ")[0] not in "=+-@"
    assert row["used"] == "-1.00"


NAMING = Naming("Slurm", "'root' owns the tree")
ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+$-]{0,99}")


@given(st.text(st.characters(), max_size=120) | st.from_regex(r"[-+=,a-z\[\]]{1,40}"))
def test_no_name_becomes_an_option_a_list_or_a_second_word(name: str) -> None:
    checks: list[Callable[[str], str]] = [NAMING.user, partial(NAMING.account, kind="account")]
    for check in checks:
        try:
            checked = check(name)
        except PermanentError as error:
            assert str(error).isprintable()  # noqa: PT017 - either outcome is right
        else:
            assert ALLOWED.fullmatch(checked)
            assert checked.lower() != "root"


@pytest.mark.parametrize(
    "look_alike", ["\u0430da01", "ada\u200b01", "\uff41da01", "a\u0301da01", "\u017fam"]
)
def test_a_name_that_looks_like_another_is_refused_by_its_letters(look_alike: str) -> None:
    with pytest.raises(PermanentError) as caught:
        NAMING.user(look_alike)
    assert ascii(look_alike).strip("'") in str(caught.value)


@given(st.text(st.characters(), max_size=400))
def test_free_text_is_cut_to_what_a_table_of_the_backend_can_hold(text: str) -> None:
    plain = plain_text(text, 60)
    assert plain.isprintable()
    assert len(plain.encode()) <= 60
    assert not set(plain) & set("|'\"`\\=")


SHOWN = {
    "account": "a_ocean",
    "resource": {"name": HOSTILE + HALF},
    "project": HOSTILE,
    "ends_on": CSI,
    "label": f"CPU{CSI}",
    "unit": CLEAR,
    "limit": 10,
    "used": 8,
}
WRITTEN = {"format": 1, "offering": HOSTILE, "written": "2026-11-27T12:00:00+00:00"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (json.dumps(WRITTEN | {"budgets": [SHOWN]}), 0),
        (json.dumps(WRITTEN | {"budgets": [SHOWN | {"used": 1e308, "limit": 1e-308}]}), 0),
        (json.dumps(WRITTEN | {"budgets": [SHOWN], "written": "2026-11-27T12:00:00"}), 0),
        (json.dumps(WRITTEN | {"budgets": [SHOWN], "written": "0001-01-01T00:00:00+23:59"}), 2),
        (json.dumps(WRITTEN | {"budgets": [SHOWN | {"used": float("nan")}]}), 2),
        (json.dumps(WRITTEN | {"budgets": [SHOWN | {"limit": float("inf")}]}), 2),
        ("[" * 100_000, 2),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_budgets_reach_the_terminals_of_users_escaped_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, code: int
) -> None:
    file = tmp_path / "budgets.json"
    file.write_text(content)
    assert waldur_budget(["--file", str(file), "--account", "a_ocean"]) == code
    said = capsys.readouterr()
    assert unprintable(said.out + said.err) == set()
    assert ("Ocean" in said.out) is (code == 0)


PREFIXES = [
    pytest.param({"customer": "hpc_", "project": "hpc_"}, id="the same"),
    pytest.param({"customer": "", "project": ""}, id="none"),
    pytest.param({"customer": "hpc_", "project": "hpc_p"}, id="one begins with the other"),
]


@pytest.mark.parametrize("prefixes", PREFIXES)
@pytest.mark.guarantee("security: Threat model")
def test_no_project_gets_into_the_account_of_an_organization_with_its_slug(
    testbed: SimulatedSite, prefixes: dict[str, str]
) -> None:
    """Or its jobs would have the organization's share, and its end would remove the account."""
    testbed.settings = {f"{kind}_prefix": value for kind, value in prefixes.items()}
    side = testbed.sandbox.customer
    theirs = side.add_customer("Oceans", "poceans" if prefixes["project"][4:] else "oceans")
    honest = side.place_create_order(side.add_project("tides", theirs), "run", {"cpu": 1})
    testbed.cycle()
    before = {name: each.parent for name, each in testbed.slurm.state.accounts.items()}
    mine = side.add_project("oceans", side.add_customer("Mallory", "mallory"), "oceans")
    order = side.place_create_order(mine, "run2", {"cpu": 1})
    testbed.cycle()
    assert (testbed.state(honest), testbed.state(order)) == ("done", "erred")
    assert "different values" in side.current(order).error_message
    assert {name: each.parent for name, each in testbed.slurm.state.accounts.items()} == before


def test_no_organization_gets_into_the_account_of_a_project_with_its_slug(
    testbed: SimulatedSite,
) -> None:
    testbed.settings = {"customer_prefix": "hpc_", "project_prefix": "hpc_"}
    side = testbed.sandbox.customer
    theirs = side.add_project("tides", side.add_customer("Oceans", "oceans"), "tides")
    honest = side.place_create_order(theirs, "run", {"cpu": 1})
    testbed.cycle()
    mine = side.add_project("mine", side.add_customer("Tides", "tides"))
    order = side.place_create_order(mine, "run2", {"cpu": 1})
    testbed.cycle()
    assert (testbed.state(honest), testbed.state(order)) == ("done", "erred")
    assert "different values" in side.current(order).error_message


@pytest.mark.parametrize("prefixes", PREFIXES)
@pytest.mark.guarantee("security: Threat model")
def test_no_project_gets_into_the_account_of_an_organization_in_moab(
    tmp_path: Path, prefixes: dict[str, str]
) -> None:
    """There, an account of an earlier agent's project is its own organization, too."""
    with a_simulated_moab_site(tmp_path / "lock") as site:
        site.settings = {f"{kind}_prefix": value for kind, value in prefixes.items()}
        side = site.sandbox.customer
        slug = "poceans" if prefixes["project"][4:] else "oceans"
        theirs = side.add_project("tides", side.add_customer("Oceans", slug))
        honest = side.place_create_order(theirs, "run", {"deposit": 1})
        site.cycle()
        before = site.accounts
        mine = side.add_project("oceans", side.add_customer("Mallory", "mallory"), "oceans")
        order = side.place_create_order(mine, "run2", {"deposit": 1})
        site.cycle()
        assert (site.state(honest), site.state(order)) == ("done", "erred")
        assert "different values" in side.current(order).error_message
        assert site.accounts - {f"{prefixes['customer']}mallory"} == before


@pytest.mark.parametrize("prefix", ["p_", "c_"])
def test_the_project_account_of_an_earlier_agent_in_moab_is_used(
    tmp_path: Path, prefix: str
) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as site:
        site.settings = {"customer_prefix": "c_", "project_prefix": prefix}
        project = site.project(ada="ada01")
        first = site.order(project, "first")
        site.cycle()
        site.mam.state.accounts[f"{prefix}climate"].organization = f"{prefix}climate"
        second = site.order(project, "second")
        site.cycle()
        assert (site.state(first), site.state(second)) == ("done", "done")


@pytest.mark.parametrize("username", ["opsbot", "OpsBot"])
@pytest.mark.guarantee("security: Threat model")
def test_nobody_who_takes_a_reserved_username_puts_its_owner_out_of_other_accounts(
    testbed: SimulatedSite, username: str
) -> None:
    reserve_usernames(["opsbot"])
    try:
        theirs = testbed.resource(testbed.order(testbed.project(bob="bob01"), "ocean", cpu=1))
        testbed.cycle()
        account = testbed.sandbox.customer.current(theirs).backend_id
        add = ["sacctmgr", "-i", "add", "user", "name=opsbot", f"account={account}"]
        testbed.slurm.run(add)  # by the site's administrators
        mine = testbed.resource(testbed.order(testbed.project(mallory=username), "mine", cpu=1))
        testbed.cycle()
        testbed.sync()
        testbed.sync()
        assert set(testbed.slurm.state.accounts[account].members) == {"bob01", "opsbot"}
        account = testbed.sandbox.customer.current(mine).backend_id
        assert not testbed.slurm.state.accounts[account].members
    finally:
        reserve_usernames([])
