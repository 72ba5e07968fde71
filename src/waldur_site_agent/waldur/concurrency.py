"""Independent calls in a few threads, with results in the order of the items."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from waldur_site_agent.model.errors import SiteAgentError

Item = TypeVar("Item")
Value = TypeVar("Value")

_one_at_a_time = contextvars.ContextVar("one_at_a_time", default=False)


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Item, Value]):
    """The result of one call."""

    item: Item
    value: Value | None = None
    error: SiteAgentError | None = None
    """Why there is no value; ``None`` after a success."""


def concurrently(
    function: Callable[[Item], Value], items: Iterable[Item], *, workers: int = 8
) -> list[Attempt[Item, Value]]:
    """Call the function for every item, at most ``workers`` at a time.

    The attempts are in the order of the items. An item that fails does not affect the others; an
    exception that is not a :class:`SiteAgentError` is a bug and propagates once running calls have
    ended, and calls that have not started are dropped. Context variables (such as the logger's)
    are those of the caller. A call that hangs does not keep the process alive.
    """
    waiting = list(items)

    def attempt(item: Item) -> Attempt[Item, Value]:
        try:
            return Attempt(item=item, value=function(item))
        except SiteAgentError as error:
            return Attempt(item=item, error=error)

    if len(waiting) <= 1 or workers <= 1 or _one_at_a_time.get():
        return [attempt(item) for item in waiting]
    attempts: dict[int, Attempt[Item, Value]] = {}
    todo = deque((n, item, contextvars.copy_context()) for n, item in enumerate(waiting))

    def work() -> None:
        while todo:
            try:
                number, item, context = todo.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                attempts[number] = context.run(attempt, item)
            except BaseException:
                todo.clear()
                raise

    threads = [in_background(work, f"waldur_{n}") for n in range(min(workers, len(waiting)))]
    wait(threads)
    for thread in threads:
        thread.result()
    return [attempts[number] for number in range(len(waiting))]


def in_background(function: Callable[[], Value], name: str) -> Future[Value]:
    """Call the function in a thread of its own, which does not keep the process alive.

    An executor's threads would: the interpreter waits for them at exit, however long they hang.
    """
    future: Future[Value] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised by result(), in the caller's thread
            future.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    return future


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Make calls in the order of their items and in this thread while the body runs.

    For tests that must be reproducible.
    """
    token = _one_at_a_time.set(True)
    try:
        yield
    finally:
        _one_at_a_time.reset(token)
