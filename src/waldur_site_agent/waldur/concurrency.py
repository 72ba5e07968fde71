"""Independent calls side by side: a small pool, results in the order of the questions."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from waldur_site_agent.model.errors import SiteAgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Item, Value]):
    """What became of one call."""

    item: Item
    value: Value | None = None
    error: SiteAgentError | None = None
    """Why there is no value; ``None`` after a success."""


def concurrently(
    function: Callable[[Item], Value], items: Iterable[Item], *, workers: int = 8
) -> list[Attempt[Item, Value]]:
    """Call the function for every item, at most ``workers`` at a time.

    The attempts come in the order of the items. A failure of one item leaves the others alone;
    anything that is not a :class:`SiteAgentError` is a bug and propagates once the calls under
    way have ended, and calls that have not begun are dropped. Context variables (the logger's
    among them) are those of the caller.
    """
    waiting = list(items)

    def attempt(item: Item) -> Attempt[Item, Value]:
        try:
            return Attempt(item=item, value=function(item))
        except SiteAgentError as error:
            return Attempt(item=item, error=error)

    if len(waiting) <= 1 or workers <= 1:
        return [attempt(item) for item in waiting]
    pool = ThreadPoolExecutor(min(workers, len(waiting)), thread_name_prefix="waldur")
    try:
        futures = [pool.submit(contextvars.copy_context().run, attempt, i) for i in waiting]
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
