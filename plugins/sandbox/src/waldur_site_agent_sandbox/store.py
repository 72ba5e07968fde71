"""Keeps the world: one writer at a time, changes whole or not at all, the past at hand."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import overload

from pydantic import JsonValue, TypeAdapter, ValidationError

from waldur_site_agent_sandbox.broker import BrokerAdmin, NoBroker
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.occurrences import Occurrence
from waldur_site_agent_sandbox.world import World

_REMEMBERED_CHANGES = 200
_WORLD = TypeAdapter(World)


class Clock:
    """The server's time, which tests and people may push forward. Never gives a time twice."""

    def __init__(self, source: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """``source`` replaces the machine's time, for tests."""
        self._source = source
        self._ahead = timedelta()
        self._last = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Give the time, in UTC; each call gives a later one, so that ``created`` has an order."""
        with self._lock:
            now = self._source() + self._ahead
            self._last = max(now, self._last + timedelta(microseconds=1))
            return self._last

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        with self._lock:
            self._ahead += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One reading or one change of the world: what is there, since when it is now, whose habits."""

    world: World
    now: datetime
    generation: Generation
    broker: BrokerAdmin = field(default_factory=NoBroker)
    uuids: Callable[[], uuid.UUID] = uuid.uuid4

    def new_uuid(self) -> str:
        """Give a UUID that nothing has yet."""
        return self.uuids().hex


class Store:
    """The world, its past, and optionally a file that it survives a restart in.

    Raises:
        ValueError: The file holds something else.
    """

    def __init__(
        self,
        generation: Generation,
        clock: Clock,
        file: Path | None = None,
        uuids: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self.generation = generation
        self.clock = clock
        self._uuids = uuids
        self.after_change: Callable[[], None] = lambda: None
        """Called after each change, outside of it, by the thread that made it."""
        self.after_commit: Callable[[World, Transaction], None] = lambda _before, _tx: None
        """Called with the world before and after each change, before ``after_change``."""
        self.announce: Callable[[Occurrence, Transaction], None] = lambda _what, _tx: None
        """Tells agents of something that is no change."""
        self.broker: BrokerAdmin = NoBroker()
        """Where registrations for events are carried out."""
        self.commit_lag = 0.0
        """Seconds until readers see a change that was not made at once."""
        self._unseen: list[tuple[datetime, World]] = []
        self._file = file
        self._lock = threading.RLock()
        self._past: deque[World] = deque(maxlen=_REMEMBERED_CHANGES)
        self._world = World()
        if file is not None and file.exists():
            self._world = _restored(file)

    def read(self, changes_ago: int = 0) -> Transaction:
        """See the world as it is, or as it was before the last so many changes."""
        with self._lock:
            back = min(changes_ago, len(self._past))
            world = self._past[-back] if back else self._world
        return Transaction(world, self.clock.now(), self.generation, self.broker, self._uuids)

    def read_committed(self, changes_ago: int = 0) -> Transaction:
        """See the world as readers of the API do: changes that lag are not there yet."""
        with self._lock:
            tx = self.read(changes_ago)
            self._unseen = [(seen, world) for seen, world in self._unseen if seen > tx.now]
            return replace(tx, world=self._unseen[0][1]) if self._unseen and not changes_ago else tx

    @contextmanager
    def change(self, *, at_once: bool = False) -> Iterator[Transaction]:
        """Change the world: all of it takes effect at the end, or nothing where it raises.

        A change that is made ``at_once`` shows readers everything that they could not see yet.
        """
        with self._lock:
            before = self._world
            draft = before.copy()
            tx = Transaction(draft, self.clock.now(), self.generation, self.broker, self._uuids)
            yield tx
            changed = draft != before
            if changed:
                self._commit(draft, tx.now, at_once=at_once)
        if changed:
            self.after_commit(before, tx)
        self.after_change()

    def _commit(self, draft: World, now: datetime, *, at_once: bool) -> None:
        self._past.append(self._world)
        if at_once or not self.commit_lag:
            self._unseen.clear()
        else:
            self._unseen.append((now + timedelta(seconds=self.commit_lag), self._world))
        self._world = draft
        self._save()

    def _save(self) -> None:
        if self._file is None:
            return
        draft = self._file.with_name(self._file.name + ".new")
        draft.touch(mode=0o600)
        draft.write_bytes(_WORLD.dump_json(self._world, indent=1))
        draft.replace(self._file)


def _restored(file: Path) -> World:
    try:
        return _WORLD.validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the beginning"
        raise ValueError(
            f"{file}: not the state of a sandbox of this release ({place}: {first['msg']}); "
            "remove the file to begin anew"
        ) from None


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
