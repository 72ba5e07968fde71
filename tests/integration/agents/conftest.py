"""Real databases, and several agents whose leases are their session locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import a_simulated_site
from harness.nursery import Nursery, a_nursery
from harness.several_agents import SeveralAgents, several_agents
from integration.databases import MARIADB, POSTGRESQL, RealDatabase
from integration.not_run import note_missing
from integration.places import to_purge


@pytest.fixture(scope="session", params=[POSTGRESQL, MARIADB], ids=lambda one: one.name)
def database(request: pytest.FixtureRequest) -> Iterator[RealDatabase]:
    """A real database; what this run started or made is stopped or removed at its end."""
    found: RealDatabase = request.param
    if obstacle := found.why_there_can_be_none():
        note_missing(request.config, f"real {found.name}", obstacle)
        if os.environ.get("CI") or os.environ.get("REQUIRE_SERVICES"):
            pytest.fail(f"{found.name} is required here, but {obstacle}")
        pytest.skip(f"no {found.name}: {obstacle}")
    was_running = found.is_running()
    purge = to_purge(str(found.directory))
    try:
        found.start()
        yield found
    finally:
        if not was_running:
            found.stop(*purge)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with a_nursery() as nursery:
        yield nursery


@pytest.fixture
def agents(database: RealDatabase, nursery: Nursery, tmp_path: Path) -> Iterator[SeveralAgents]:
    url = database.start()
    with (
        a_simulated_site(tmp_path / "writer.lock") as testbed,
        several_agents(testbed, tmp_path, url, nursery) as site,
    ):
        yield site
