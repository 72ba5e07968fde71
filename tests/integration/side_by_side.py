"""Which tests one process of pytest-xdist runs, so that at most two have a cluster each."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

_NEEDS_A_CLUSTER = "tests/integration/"
_NEEDS_A_BROKER_ALONE = "tests/integration/rabbitmq/"
_FIRST_CLUSTER = ("test_conformance.py", "test_agreement.py")
"""Take about as long as all other tests with a cluster."""


def share_of(nodeid: str) -> str:
    """Return what all tests of one process have in common; for most tests they alone."""
    path = nodeid.partition("::")[0]
    if not path.startswith(_NEEDS_A_CLUSTER):
        return nodeid
    if path.startswith(_NEEDS_A_BROKER_ALONE):
        return "broker"
    return "first cluster" if path.endswith(_FIRST_CLUSTER) else "second cluster"


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Make ``--dist loadgroup`` keep the tests of a cluster together, longest share first.

    By path, because the marker ``xdist_group`` of pytest-xdist 3.8 has no effect with pytest 9.2.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    # imported here so that the tests run without pytest-xdist too; it comes without types
    base: Any = importlib.import_module("xdist.scheduler").LoadScopeScheduling

    class Scheduling(base):  # type: ignore[misc]  # a base without types
        def _split_scope(self, nodeid: str) -> str:
            return share_of(nodeid)

    return Scheduling(config, log)
