from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from harness import Installation, SimulatedSite, a_simulated_site, installed

pytest_plugins = ["integration.not_run", "integration.side_by_side"]


@pytest.fixture(autouse=True)
def only_warnings_are_logged() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    yield
    structlog.reset_defaults()


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[SimulatedSite]:
    with a_simulated_site(tmp_path / "writer.lock") as testbed:
        yield testbed


@pytest.fixture
def installation(testbed: SimulatedSite, tmp_path: Path) -> Iterator[Installation]:
    with installed(testbed, tmp_path) as installation:
        yield installation
