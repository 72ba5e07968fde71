"""Actions as the tasks of a batch, and what the phases of a batch share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from waldur_site_agent.backends.actions import (
    Action,
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetLimits,
    SetMemberLimits,
    Skipped,
    resource_of,
)
from waldur_site_agent.model.errors import SiteAgentError, TemporaryError

ActionT_co = TypeVar("ActionT_co", bound=Action, covariant=True)


class BackendUnavailableError(TemporaryError):
    """No command has a chance at the moment: what is left of a batch is not even tried."""

    may_pass: bool = True
    """Whether it may be over in a minute, without anybody's doing."""


@dataclass(frozen=True, slots=True, eq=False)
class Task(Generic[ActionT_co]):
    """One action and its place in the list that was asked for; equal to itself alone."""

    index: int
    action: ActionT_co

    @property
    def account(self) -> str:
        """The account as the backend spells it, in lower case; not checked yet."""
        return resource_of(self.action).lower()


AnyTask: TypeAlias = Task[Any]


def batches(actions: Sequence[Action]) -> list[list[AnyTask]]:
    """Cut the list where carrying out a batch kind by kind would change what comes out.

    Within a batch two actions on one account either have nothing to do with each other or are
    in the order of the phases, and none undoes what another did: one reading at the end of the
    batch shows what became of all of them. Between accounts the order does not matter.
    """
    result: list[list[AnyTask]] = [[]]
    met: defaultdict[str, _Met] = defaultdict(_Met)
    for index, action in enumerate(actions):
        task = Task(index, action)
        if not met[task.account].goes_with(action):
            result.append([])
            met.clear()
        met[task.account].add(action)
        result[-1].append(task)
    return result


@dataclass(slots=True)
class _Met:
    """What a batch does to one account, in time that does not grow with the batch."""

    kinds: set[type] = field(default_factory=set)
    people: defaultdict[type, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, action: Action) -> None:
        self.kinds.add(type(action))
        self.people[type(action)].update(_people(action) or ())

    def goes_with(self, later: Action) -> bool:
        """Whether the action may follow in the same batch."""
        if not self.kinds:
            return True
        if DeleteResource in self.kinds or isinstance(later, CreateResource):
            return False
        if isinstance(later, DeleteResource):
            return self.kinds == {RemoveMembers}
        if isinstance(later, SetLimits) and CreateResource in self.kinds:
            return False
        if type(later) in self.kinds and not isinstance(later, SetMemberLimits):
            return False
        before_it = {AddMembers} if isinstance(later, SetMemberLimits) else set()
        people = _people(later)
        return people is None or all(
            people.isdisjoint(self.people[kind]) for kind in self.kinds - before_it
        )


def _people(action: Action) -> frozenset[str] | None:
    """The users that an action is about; ``None`` when it is about the account."""
    match action:
        case AddMembers() | RemoveMembers():
            return frozenset(member.lower() for member in action.members)
        case SetMemberLimits():
            return frozenset({action.member.lower()})
    return None


@dataclass(slots=True)
class Ledger:
    """What became of the tasks of a batch so far."""

    errors: dict[int, SiteAgentError] = field(default_factory=dict)
    skipped: defaultdict[int, list[Skipped]] = field(default_factory=lambda: defaultdict(list))
    written: set[int] = field(default_factory=set)
    """Tasks for which a writing command was started."""

    @contextmanager
    def attempt(self, *tasks: AnyTask) -> Iterator[None]:
        """Note a failure of the body as the failure of these tasks, and go on.

        Raises:
            BackendUnavailableError: nothing that follows has a chance.
        """
        try:
            yield
        except SiteAgentError as error:
            for task in tasks:
                self.errors.setdefault(task.index, error)
            if isinstance(error, BackendUnavailableError):
                raise

    def writes(self, *tasks: AnyTask) -> None:
        """Note that a writing command is about to be started for these tasks."""
        self.written.update(task.index for task in tasks)

    def leave_out(self, task: AnyTask, name: str, error: SiteAgentError) -> None:
        """Note that one member is not served, while the others are."""
        self.skipped[task.index].append(Skipped(name, error))

    def alive(self, tasks: Iterable[Task[ActionT_co]]) -> list[Task[ActionT_co]]:
        """Those that have not failed."""
        return [task for task in tasks if task.index not in self.errors]


class Reading(Protocol):
    """Every account of the backend, from one complete read."""

    def members_of(self, account: str) -> Set[str] | None:
        """The users of an account; ``None`` where there is no such account."""
        ...


R = TypeVar("R", bound=Reading)


@dataclass(slots=True, kw_only=True)
class Work(Generic[R]):
    """What the phases of one batch share; a plugin adds its client and its settings."""

    now: R
    """As it was read, with what the commands since then should have changed."""
    ledger: Ledger = field(default_factory=Ledger)

    def listed_as(self, name: str, users: Collection[str]) -> str | None:
        """How a user is listed among ``users``: by this name, or by the only one like it."""
        if name in users:
            return name
        alike = [user for user in users if user.lower() == name.lower()]
        return alike[0] if len(alike) == 1 else None


W = TypeVar("W", bound=Work[Any])
