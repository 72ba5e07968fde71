"""A sandbox that is served over HTTP, and the agent's client of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.patience import patience
from harness.testbed import plain_transport
from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]


@contextmanager
def _connected(sandbox: Sandbox) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Token {sandbox.token}"}
    with (
        sandbox.serve() as url,
        httpx.Client(
            base_url=url, headers=headers, timeout=patience(), transport=plain_transport()
        ) as client,
    ):
        yield client


@pytest.fixture
def connect() -> Connect:
    """Serve a sandbox and talk to it with the agent's token."""
    return _connected


@pytest.fixture
def sandbox() -> Sandbox:
    """A sandbox of the newest generation, with nothing but its offering."""
    return Sandbox("8.1.3")


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """The agent's client of ``sandbox``."""
    with _connected(sandbox) as client:
        yield client
