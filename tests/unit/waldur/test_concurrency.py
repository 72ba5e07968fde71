from __future__ import annotations

import threading
from contextvars import ContextVar
from queue import Queue
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.patience import patience
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.waldur import Attempt, concurrently

if TYPE_CHECKING:
    from unit.waldur.conftest import Scripted

OFFERING: ContextVar[str] = ContextVar("OFFERING", default="none")


def halve(number: int) -> int:
    if number % 2:
        raise PermanentError(f"{number} is odd")
    return number // 2


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 4))
def test_attempts_come_in_the_order_of_the_items(items: list[int], workers: int) -> None:
    attempts = concurrently(halve, items, workers=workers)
    assert items == [attempt.item for attempt in attempts]
    for attempt in attempts:
        assert (attempt.value is None) is (attempt.item % 2 == 1) is (attempt.error is not None)


def test_calls_run_side_by_side_but_no_more_than_allowed() -> None:
    together = threading.Barrier(3, timeout=patience())
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def meet(number: int) -> int:
        with lock:
            running.append(number)
            most.append(len(running))
        together.wait()
        with lock:
            running.remove(number)
        return number

    attempts = concurrently(meet, range(6), workers=3)
    assert [*range(6)] == [attempt.value for attempt in attempts]
    assert max(most) == 3


def test_a_failure_leaves_the_others_alone() -> None:
    first, second, third = concurrently(halve, [2, 3, 4], workers=2)
    assert Attempt(item=2, value=1) == first
    assert str(second.error) == "3 is odd"
    assert Attempt(item=4, value=2) == third


@pytest.mark.parametrize("workers", [1, 4])
def test_a_bug_is_not_taken_for_a_failure(workers: int) -> None:
    def stumble(number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        concurrently(stumble, [1, 0, 1, 1], workers=workers)


def test_calls_that_have_not_begun_are_dropped_after_a_bug() -> None:
    begun: list[int] = []
    stumbling: Queue[threading.Thread] = Queue()

    def stumble(number: int) -> float:
        begun.append(number)
        if number == 0:
            stumbling.put(threading.current_thread())
        else:
            stumbling.get(timeout=patience()).join(patience())
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        concurrently(stumble, range(9), workers=2)
    assert sorted(begun) in ([0], [0, 1])


def test_logging_context_reaches_the_threads() -> None:
    OFFERING.set("hpc")
    attempts = concurrently(lambda _: OFFERING.get(), range(3))
    assert [attempt.value for attempt in attempts] == ["hpc"] * 3


def test_threads_share_one_waldur_and_its_counts_add_up(server: Scripted) -> None:
    uuid = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"

    def answer(request: httpx.Request) -> httpx.Response:
        if "set_as_ok" in request.url.path:
            return httpx.Response(200)
        return httpx.Response(409, json={"detail": "Valid states."})

    server.responder = answer
    waldur = server.waldur()

    def act(number: int) -> None:
        if number % 2:
            waldur.complete_order(uuid)
        else:
            waldur.set_as_ok(uuid)

    attempts = concurrently(act, range(100))
    assert sum(isinstance(attempt.error, SiteAgentError) for attempt in attempts) == 50
    assert not any(isinstance(attempt.error, TemporaryError) for attempt in attempts)
    assert waldur.requests_made == 100
