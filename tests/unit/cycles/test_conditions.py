"""A condition that lasts is logged once, when it grows, and once a day; and when it ends."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from waldur_site_agent.cycles.conditions import Conditions, cause_of

pytestmark = pytest.mark.usefixtures("everything_is_logged")

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
EVENT = "members wait"
FIVE_MINUTES = timedelta(minutes=5)


@pytest.fixture
def everything_is_logged(only_warnings_are_logged: None) -> None:  # noqa: ARG001 - comes first
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))


class Agent:
    """Cycles five minutes apart."""

    def __init__(self) -> None:
        self.conditions = Conditions()
        self.now = NOON

    def cycle(
        self, *members: str, complete: bool = True, reason: str = "not in passwd", **fields: Any
    ) -> list[dict[str, Any]]:
        for member in members:
            self.conditions.note(EVENT, member, cause=reason, reason=reason, user=member, **fields)
        with capture_logs() as lines:
            self.conditions.settle(structlog.get_logger(), self.now, complete=complete)
        self.now += FIVE_MINUTES
        return [dict(line) for line in lines]


def test_a_condition_is_logged_once_and_then_daily_with_its_beginning() -> None:
    agent = Agent()
    (line,) = agent.cycle("ada")
    assert line == {
        "event": EVENT, "log_level": "warning", "user": "ada", "reason": "not in passwd"
    }  # fmt: skip
    lines = [line for _ in range(3 * 288) for line in agent.cycle("ada")]
    assert len(lines) == 3
    assert {line["since"] for line in lines} == {"2026-11-02T12:00:00+00:00"}


def test_one_cause_is_one_line_with_a_count_however_many_it_concerns() -> None:
    agent = Agent()
    people = [f"user{number:02}" for number in range(25)]
    (line,) = agent.cycle(*people)
    assert (line["count"], line["affected"]) == (25, people[:10])
    assert "user" not in line
    assert agent.cycle(*people) == []


def test_two_causes_are_two_lines() -> None:
    agent = Agent()
    agent.conditions.note(EVENT, "bob", cause="locked", reason="locked")
    assert [line["reason"] for line in agent.cycle("ada")] == ["locked", "not in passwd"]


def test_a_newcomer_is_logged_at_once_and_named_first() -> None:
    agent = Agent()
    agent.cycle("ada", "bob")
    (line,) = agent.cycle("ada", "bob", "zoe")
    assert (line["count"], line["affected"]) == (3, ["zoe", "ada", "bob"])
    assert agent.cycle("ada", "bob", "zoe") == []
    assert agent.cycle("bob", "zoe") == []


def test_the_end_is_logged_and_a_new_beginning_is_news() -> None:
    agent = Agent()
    agent.cycle("ada")
    (line,) = agent.cycle()
    assert (line["event"], line["condition"], line["affected"]) == ("resolved", EVENT, ["ada"])
    assert line["log_level"] == "info"
    assert agent.cycle() == []
    assert len(agent.cycle("ada")) == 1


def test_a_cycle_that_saw_a_part_only_ends_nothing() -> None:
    agent = Agent()
    agent.cycle("ada", "bob")
    assert agent.cycle(complete=False) == []
    assert agent.cycle("ada", complete=False) == []
    assert agent.cycle("ada", "bob") == []


def test_what_is_only_worth_knowing_ends_without_a_line() -> None:
    agent = Agent()
    agent.cycle("ada", level=logging.INFO)
    assert agent.cycle() == []


def test_figures_that_change_with_each_cycle_are_no_news() -> None:
    agent = Agent()
    assert agent.cycle("ada", used="1.00")[0]["used"] == "1.00"
    assert agent.cycle("ada", used="2.00") == []


def test_the_same_words_about_two_objects_have_one_cause() -> None:
    text = "order {0} was not approved: cannot approve order {1}: run-{2}: the project is expired"
    first = text.format(*(2 * ["0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1"]), "a")
    second = text.format(
        "97abc395-e492-4332-975d-31742e008c53", "97abc395e4924332975d31742e008c53", "b"
    )
    assert cause_of(first, "run-a") == cause_of(second, "run-b")
    assert cause_of("a_b: slurmdbd is away", "a") == "a_b: slurmdbd is away"
