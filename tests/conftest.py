from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from harness import House, Installation, a_house, installed

pytest_plugins = ["integration.not_run", "integration.side_by_side"]


@pytest.fixture(autouse=True)
def only_warnings_are_logged() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    yield
    structlog.reset_defaults()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with a_house(tmp_path / "writer.lock") as house:
        yield house


@pytest.fixture
def installation(house: House, tmp_path: Path) -> Iterator[Installation]:
    with installed(house, tmp_path) as installation:
        yield installation
