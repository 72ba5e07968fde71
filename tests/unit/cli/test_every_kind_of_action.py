"""Every kind of action is shown to people in words: in plans, in the journal, on pages."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    CreateHomeDirectories,
    CreateProjectDirectory,
    CreateResource,
    DeleteResource,
    MoveContainer,
    Outcome,
    RemoveMembers,
    ResetUsage,
    Result,
    SetAccess,
    SetBudget,
    SetLimits,
    SetMemberLimits,
)
from waldur_site_agent.backends.contract import HOOKS
from waldur_site_agent.cli.plan import step_changes, step_json
from waldur_site_agent.model.backend import Container, Placement
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.service.allowances import Allowances
from waldur_site_agent.service.health import Health
from waldur_site_agent.service.journal import Journal
from waldur_site_agent.service.journal_reading import read_journal
from waldur_site_agent.service.overview import Overview
from waldur_site_agent.service.pages import Pages, PageSettings

PLACEMENT = Placement(id="a_run", title="Run", parent="p_sea", organization="p_sea")
PROJECT = Container(kind="project", id="a_run", parent="c_lab", title="Sea", organization="a_run")
EACH_KIND: list[Action] = [
    CreateResource(PLACEMENT),
    DeleteResource("a_run"),
    MoveContainer((PROJECT,), previous="c_uni"),
    SetLimits("a_run", {"cpu": Decimal(5)}),
    AddMembers("a_run", ("ada",)),
    RemoveMembers("a_run", ("ada",)),
    SetMemberLimits("a_run", "ada", {"cpu": None}),
    SetAccess("a_run", Access.PAUSED),
    SetBudget("a_run", {"cpu": Decimal(5)}, share=3),
    ResetUsage("a_run", "2031-Q2"),
    CreateHomeDirectories(("ada",)),
    CreateProjectDirectory("a_run"),
]


def page(directory: Path) -> str:
    """The index page, with the journal of this directory."""
    pages = Pages(
        settings=PageSettings(address="127.0.0.1:0", journal=directory / "journal.jsonl"),
        health=Health(),
        overview=Overview(),
        allowances=Allowances(directory / "refusals"),
    )
    answer = pages.answer("/", {"host": "localhost"})
    assert answer is not None
    return answer[1].decode()


@pytest.mark.parametrize("action", EACH_KIND, ids=lambda action: type(action).__name__)
def test_a_change_of_every_kind_is_told_in_words_and_found_by_its_account(
    action: Action, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.of("o", "m").record(Step(action, "reason"), Outcome(action, Result.DONE))
    journal.close()
    name = "ada" if isinstance(action, CreateHomeDirectories) else "a_run"
    (entry,) = read_journal(tmp_path / "journal.jsonl", name)
    shown = page(tmp_path)
    for text in (entry.text, shown):
        assert type(action).__name__ not in text
        assert "in Waldur: " not in text


def test_no_kind_of_action_is_left_out() -> None:
    assert {type(action) for action in EACH_KIND} == HOOKS.keys()


@pytest.mark.parametrize("action", EACH_KIND, ids=lambda action: type(action).__name__)
def test_a_plan_shows_a_change_of_every_kind_in_words(action: Action) -> None:
    lines = [*step_changes(step_json(Step(action, "the reason")))]
    assert lines
    assert type(action).__name__ not in str(lines)
    assert all("the reason" in line[2] for line in lines)
