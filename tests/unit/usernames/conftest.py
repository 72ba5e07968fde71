from __future__ import annotations

from collections.abc import Iterator

import pytest

from unit.usernames.people import Place, a_place


@pytest.fixture(params=["7.7.9", "8.1.3"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A Waldur of each generation."""
    with a_place(request.param) as made:
        yield made


@pytest.fixture
def new_place() -> Iterator[Place]:
    """A Waldur on which a username completes the account."""
    with a_place("8.1.3") as made:
        yield made


@pytest.fixture
def old_place() -> Iterator[Place]:
    """A Waldur on which it does not."""
    with a_place("7.7.9") as made:
        yield made
