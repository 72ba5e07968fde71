"""What Waldur is told about a resource, and that nothing is told twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import Access, BackendResource
from waldur_site_agent.model.offerings import Component
from waldur_site_agent.model.orders import Resource
from waldur_site_agent.planning.feedback import feedback_on, limits_to_report

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def resource(**changes: Any) -> Resource:
    values: dict[str, Any] = {"uuid": uuid4(), "name": "r", "state": "OK", "backend_id": "a"}
    return Resource(**values | changes)


def found(**changes: Any) -> BackendResource:
    values: dict[str, Any] = {"access": Access.NORMAL, "metadata": {"qos": "normal"}}
    return BackendResource(id="a", **values | changes)


CPU = Component(
    type="cpu", measured_unit="h", label="C", accounting_type="limit", unit_factor=Decimal(60)
)
GPU = Component(type="gpu", measured_unit="h", label="G", accounting_type="usage")


def test_limits_are_reported_when_they_differ_and_only_limit_components() -> None:
    components = {"cpu": CPU, "gpu": GPU}
    has = found(limits={"cpu": Decimal(90), "gpu": Decimal(5), "node": Decimal(1)})
    shown = resource(limits={"cpu": Decimal(1), "gpu": Decimal(7)})
    reported = limits_to_report(shown, has, components)
    assert reported == {"cpu": Decimal("1.5"), "gpu": Decimal(7)}  # Waldur replaces all of them
    assert limits_to_report(replace(shown, limits=reported), has, components) is None


def test_a_limit_that_cannot_be_told_exactly_is_not_reported() -> None:
    has = found(limits={"cpu": Decimal(1)})
    assert limits_to_report(resource(limits={"cpu": Decimal(3)}), has, {"cpu": CPU}) is None


@given(st.integers(0, 10**9), st.integers(0, 10**6))
def test_a_limit_is_never_reported_twice(amount: int, shown: int) -> None:
    has = found(limits={"cpu": Decimal(amount)})
    before = resource(limits={"cpu": Decimal(shown)})
    reported = limits_to_report(before, has, {"cpu": CPU})
    if reported is not None:
        assert limits_to_report(replace(before, limits=reported), has, {"cpu": CPU}) is None


@pytest.mark.parametrize(
    ("minutes", "works", "expected"), [(49, True, False), (51, True, True), (51, False, False)]
)
def test_the_sync_mark_is_renewed_only_when_it_is_old(
    minutes: int, works: bool, expected: bool
) -> None:
    synced = resource(last_sync=NOW - timedelta(minutes=minutes))
    assert feedback_on(synced, found(), {}, NOW, works=works).refresh_sync is expected


def test_an_erred_resource_that_works_again_is_set_ok() -> None:
    erred = resource(state="Erred", uuid=UUID(int=1))
    assert feedback_on(erred, found(), {}, NOW, works=True).set_ok
    assert not feedback_on(erred, found(), {}, NOW, works=False).set_ok
    assert not feedback_on(resource(), found(), {}, NOW, works=True).set_ok
