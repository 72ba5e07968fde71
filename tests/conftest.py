from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from harness import Installation, SimulatedSite, a_simulated_site, installed
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE

pytest_plugins = ["integration.not_run", "integration.side_by_side"]
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # how long an example takes says how busy the machine is
LOCKS = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the locks of all agents of this run in a directory that is removed afterwards.

    Also keep what is compiled, or each process that a test starts compiles every module again.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if DIRECTORY_VARIABLE not in os.environ:  # workers of pytest-xdist inherit it
        config.stash[LOCKS] = Path(tempfile.mkdtemp(prefix="waldur-site-agent-locks-"))
        os.environ[DIRECTORY_VARIABLE] = str(config.stash[LOCKS])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that directory."""
    if LOCKS in config.stash:
        shutil.rmtree(config.stash[LOCKS])
        del os.environ[DIRECTORY_VARIABLE]


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
