"""The log of requests: what a client asked, counted and looked at by tests and people."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pydantic import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that came in. Its headers, and so the token, are not kept."""

    method: str
    operation: str
    """The operationId, such as ``marketplace_orders_list``; empty for a path nobody serves."""
    path: str
    query: str
    status: int | None
    """``None`` where the connection was cut before anything happened."""
    body: JsonValue
    answered: bool
    """False where the client never saw the status."""
    user_agent: str
    time: datetime


class Journal(Sequence[Request]):
    """Requests in the order in which they ended. Safe to read while requests come in."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request) -> None:
        """Write a request down."""
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._requests.clear()

    def of(self, operation: str) -> list[Request]:
        """Give the requests of an operation; ``*`` and ``?`` stand for what they usually do."""
        return [each for each in self.snapshot() if fnmatchcase(each.operation, operation)]

    def count(self, operation: object = "*") -> int:
        """Count the requests of an operation, or all of them."""
        return len(self.of(str(operation)))

    def writes(self) -> list[Request]:
        """Give the requests that are no plain reading."""
        return [each for each in self.snapshot() if each.method not in {"GET", "HEAD"}]

    def by_operation(self) -> Counter[str]:
        """Count the requests of each operation."""
        return Counter(each.operation for each in self.snapshot())

    def snapshot(self) -> list[Request]:
        """Give what is there now."""
        with self._lock:
            return list(self._requests)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        return self.snapshot()[index]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.snapshot())
