"""Which tests one process of pytest-xdist runs: those of a file, or of one of four clusters."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

_NEEDS_A_SERVICE = "tests/integration/"
_SHARES = {
    "first cluster": ("slurm/test_agreement.py", "slurm/test_using.py", "orders/"),
    "second cluster": ("slurm/test_conformance.py", "slurm/test_trouble.py"),
    "third cluster": ("membership/", "slurm/test_usage.py"),
}
"""Each takes some minutes; all other tests with a service are the fourth share."""
_IMPORTS_THE_OFFICIAL_CLIENT = (
    "tests/contract/test_gateway_sdk.py",
    "tests/contract/test_sandbox_sdk.py",
    "tests/unit/cli/test_plugins_command.py",
    "tests/unit/v1_plugins/",
)
"""Its 2,600 classes take seconds to import, so one process does it for all of these."""


def share_of(nodeid: str) -> str:
    """Return what all tests of one process have in common: a cluster, or else their file."""
    path = nodeid.partition("::")[0]
    if path.startswith(_IMPORTS_THE_OFFICIAL_CLIENT):
        return "official client"
    if not path.startswith(_NEEDS_A_SERVICE):
        return path
    within = path.removeprefix(_NEEDS_A_SERVICE)
    for share, beginnings in _SHARES.items():
        if within.startswith(beginnings):
            return share
    return "fourth cluster, and a broker"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that wait for a service; the others fill the time."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: not item.nodeid.startswith(_NEEDS_A_SERVICE))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Make ``--dist loadgroup`` keep the tests of a cluster, or of a file, together.

    By path, because the marker ``xdist_group`` of pytest-xdist 3.8 has no effect with pytest 9.2.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False  # the order is that of the collection
    # imported here so that the tests run without pytest-xdist too; it comes without types
    base: Any = importlib.import_module("xdist.scheduler").LoadScopeScheduling

    class Scheduling(base):  # type: ignore[misc]  # a base without types
        def _split_scope(self, nodeid: str) -> str:
            return share_of(nodeid)

    return Scheduling(config, log)
