"""What Waldur is told about a resource, and that nothing is told twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from waldur_site_agent.backends import Access, BackendResource
from waldur_site_agent.model.marketplace import Resource
from waldur_site_agent.planning.membership import feedback_on

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def resource(**changes: Any) -> Resource:
    values: dict[str, Any] = {"uuid": uuid4(), "name": "r", "state": "OK", "backend_id": "a"}
    return Resource(**values | changes)


def found(**changes: Any) -> BackendResource:
    values: dict[str, Any] = {"access": Access.NORMAL, "metadata": {"qos": "normal"}}
    return BackendResource(id="a", **values | changes)


@pytest.mark.parametrize(
    ("minutes", "works", "expected"), [(49, True, False), (51, True, True), (51, False, False)]
)
def test_the_sync_mark_is_renewed_only_when_it_is_old(
    minutes: int, works: bool, expected: bool
) -> None:
    synced = resource(last_sync=NOW - timedelta(minutes=minutes))
    assert feedback_on(synced, found(), NOW, works=works).refresh_sync is expected


def test_an_erred_resource_that_works_again_is_set_ok() -> None:
    erred = resource(state="Erred", uuid=UUID(int=1))
    assert feedback_on(erred, found(), NOW, works=True).set_ok
    assert not feedback_on(erred, found(), NOW, works=False).set_ok
    assert not feedback_on(resource(), found(), NOW, works=True).set_ok
