"""Passes over the generated sites of the bench: their counts, never their times."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.__main__ import baseline
from bench.passes import MODES, events_per_second, measure

PAGE = 300


@pytest.mark.guarantee("Requests and processes per cycle are a constant plus the number of changes")
@pytest.mark.parametrize("resources", [100, 1000])
@pytest.mark.parametrize("mode", sorted(MODES))
def test_a_pass_costs_no_more_requests_and_commands_than_in_the_last_release(
    mode: str, resources: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    cost, before = measure(mode, resources), baseline()[0][mode, resources]
    assert cost.requests <= before.requests
    assert cost.commands <= before.commands
    assert cost.lookups == 0
    orders, again = MODES[mode].orders, MODES[mode].refused_every and 5
    assert cost.commands <= 4 + 1.4 * orders + again
    members = 10 * resources
    assert cost.requests <= 10 + 3.1 * orders + resources // PAGE + 2 * (members // PAGE)


def test_what_goes_into_the_queue_of_events_comes_out() -> None:
    assert events_per_second(1000) > 0
