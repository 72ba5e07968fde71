from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Installation, SimulatedSite
from harness.in_process import installed_in_process


@pytest.fixture
def installation(testbed: SimulatedSite, tmp_path: Path) -> Iterator[Installation]:
    """Commands that run in the test's own process."""
    with installed_in_process(testbed, tmp_path) as installation:
        yield installation
