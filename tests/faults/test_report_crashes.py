"""kill -9 at any request of a report, and answers that get lost: the bill comes out right."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Literal

import pytest

from harness import KilledError, KillSwitch
from harness.metering import Meter, a_meter
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Resource

Scene = Callable[[Meter], None]
_MAIN = "marketplace_component_usages_set_*"


def new_month(meter: Meter) -> None:
    """Waldur has no figure yet."""
    start = meter.travel("2027-03-11T00:00")
    for account in ("a_ocean", "a_ice"):
        for user, component in (("ada", "cpu"), ("bob", "cpu"), ("bob", "mem")):
            meter.ledger.run(account, user, start, component=component)
    meter.travel("2027-03-11T02:00")


def growing(meter: Meter) -> None:
    """Waldur has figures; some grew, one user vanished, and one resource is erred."""
    new_month(meter)
    assert not meter.report().failed
    start = meter.travel("2027-03-12T00:00")
    meter.ledger.run("a_ocean", "cyd", start, hours=3)
    meter.ledger.work = [
        work for work in meter.ledger.work if (work.account, work.user) != ("a_ocean", "bob")
    ]
    meter.ledger.run("a_ocean", "ada", start, component="mem")
    meter.change(resources(meter)[1], state="Erred")
    meter.travel("2027-03-12T04:00")


def another_component(meter: Meter) -> None:
    """One component has a figure, the other has none, and only parts differ in it."""
    new_month(meter)
    for resource in resources(meter):
        meter.sandbox.customer.put_usage(resource, "cpu", Decimal("1.50"))


def closing(meter: Meter) -> None:
    """The month before has to be closed, and this one begins."""
    new_month(meter)
    assert not meter.report().failed
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-31T20:00"), hours=6)
    meter.travel("2027-04-01T03:00")


def resources(meter: Meter) -> list[Resource]:
    return sorted(meter.sandbox.customer.world.resources.values(), key=lambda r: r.slug)


def end(meter: Meter) -> dict[str, Any]:
    """What is billed, to whom, and whether all of it can be."""
    return {
        f"{resource.slug} {month}": (
            resource.state,
            meter.total(resource, month),
            {
                c: {u: p for u, p in parts.items() if p}
                for c, parts in meter.parts(resource, month).items()
            },
        )
        for resource in resources(meter)
        for month in ("2027-03", "2027-04")
    }


@contextlib.contextmanager
def played(scene: Scene, version: str = "8.1.3") -> Iterator[Meter]:
    with a_meter(version) as provider:
        meter = provider.with_(token=provider.sandbox.staff().token)
        meter.resource("ocean")
        meter.resource("ice")
        scene(meter)
        meter.sandbox.requests.clear()
        frozen = meter.sandbox.clock.now()
        yield meter.with_(now=lambda: frozen)


def undisturbed(scene: Scene, version: str = "8.1.3") -> tuple[dict[str, Any], list[str]]:
    counting = KillSwitch()
    with played(scene, version) as meter:
        assert not meter.with_(transport=counting.transport).report().failed
        result = end(meter)
    for _state, totals, parts in result.values():
        for component, total in totals.items():
            assert sum(parts.get(component, {}).values()) == total
    return result, counting.steps


@pytest.mark.guarantee("Killed at any instruction, the next cycle finishes the work")
@pytest.mark.parametrize(
    ("scene", "version"),
    [
        (new_month, "8.1.3"),
        (growing, "8.1.3"),
        (another_component, "8.1.3"),
        (closing, "8.1.3"),
        pytest.param(new_month, "7.7.9", marks=pytest.mark.long),
        pytest.param(growing, "7.7.9", marks=pytest.mark.long),
    ],
)
def test_a_report_killed_after_any_request_is_finished_by_the_next(
    scene: Scene, version: str
) -> None:
    expected, steps = undisturbed(scene, version)
    assert len(steps) > 5
    for number in range(1, len(steps) + 1):
        with played(scene, version) as meter:
            blade = KillSwitch(at=number, after_effect=True)
            with pytest.raises(KilledError):
                meter.with_(transport=blade.transport).report()
            assert not meter.report().failed
            assert end(meter) == expected, f"killed at step {number}: {blade.steps[number - 1]}"


@pytest.mark.guarantee("A verdict that nobody takes back rests on one object read by itself")
@pytest.mark.parametrize("age", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("scene", [new_month, growing, another_component, closing])
def test_lists_a_moment_old_cost_no_cent(scene: Scene, age: int) -> None:
    expected, steps = undisturbed(scene)
    for number in (0, *range(2, len(steps) + 1, 3)):
        with played(scene) as meter:
            blade = KillSwitch(at=number, after_effect=True)
            with contextlib.suppress(KilledError):
                meter.with_(transport=blade.transport).report()
            meter.sandbox.faults.add("*_list", "stale", times=None, changes_ago=age)
            for _ in range(2):
                with contextlib.suppress(TemporaryError):
                    meter.report_again()
            meter.sandbox.faults.clear()
            meter.report_again()
            assert end(meter) == expected, f"killed at step {number}"


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
@pytest.mark.parametrize("scene", [pytest.param(new_month, marks=pytest.mark.long), growing])
def test_any_write_whose_answer_is_lost_changes_nothing_in_the_end(
    scene: Scene, kind: Literal["lost_answer", "cut"]
) -> None:
    expected, steps = undisturbed(scene)
    writes = sum("/set_" in step for step in steps)
    assert writes > 3
    for skipped in range(writes):
        with played(scene) as meter:
            meter.sandbox.faults.add(_MAIN, kind, skip=skipped, times=5)
            with contextlib.suppress(TemporaryError):
                meter.report_again()
            meter.sandbox.faults.clear()
            assert not meter.report_again().failed
            assert end(meter) == expected, f"write {skipped + 1}"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_for_a_while_costs_no_cent(status: int) -> None:
    expected, _ = undisturbed(growing)
    with played(growing) as meter:
        meter.sandbox.faults.add("*", "status", status=status, times=40)
        for _ in range(12):
            with contextlib.suppress(TemporaryError):
                meter.report_again()
        assert meter.sandbox.faults.pending == []
        assert end(meter) == expected
