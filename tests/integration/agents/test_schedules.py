"""Whatever befalls agents and their database: every order ends once, and one writes at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from harness import a_simulated_site
from harness.nursery import Nursery
from harness.several_agents import several_agents
from integration.agents.schedules import Schedule
from integration.databases import RealDatabase

AT_A_TIME = 4
pytestmark = pytest.mark.database


def carry_out(directory: Path, url: str, nursery: Nursery, seed: int) -> None:
    place = directory / str(seed)
    place.mkdir()
    with (
        a_simulated_site(place / "writer.lock") as testbed,
        several_agents(testbed, place, url, nursery) as site,
    ):
        Schedule(site, seed).run()


def carry_out_all(database: RealDatabase, nursery: Nursery, directory: Path, seeds: range) -> None:
    """Several at a time, because each mostly waits."""
    one = partial(carry_out, directory, database.start(), nursery)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        assert list(pool.map(one, seeds)) == [None] * len(seeds)


@pytest.mark.guarantee("With several agents one works")
def test_a_few_random_schedules(database: RealDatabase, nursery: Nursery, tmp_path: Path) -> None:
    carry_out_all(database, nursery, tmp_path, range(4))


@pytest.mark.long
@pytest.mark.guarantee("With several agents one works")
def test_a_hundred_random_schedules_on_each_database(
    database: RealDatabase, nursery: Nursery, tmp_path: Path
) -> None:
    carry_out_all(database, nursery, tmp_path, range(100, 200))
