"""Writes that several accounts share: one command for all of them, one for each if that fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.command_line import AnyTask, BackendUnavailableError, Ledger
from waldur_site_agent_slurm import commands

ASSOCIATIONS_PER_COMMAND = 200
"""Of users in several accounts: Slurm 22.05 takes 0.13 s for each when the database is large."""

TaskT = TypeVar("TaskT", bound=AnyTask)


def grouped(
    wanted: Mapping[TaskT, Collection[str]],
    alike: Callable[[TaskT], Hashable] = lambda _task: None,
) -> Iterator[tuple[tuple[str, ...], list[TaskT]]]:
    """Users, and the tasks whose accounts one command can name with them. Pure.

    Tasks share a command if they are about the same users, and ``alike`` is the same for them.
    """
    same: defaultdict[Hashable, list[TaskT]] = defaultdict(list)
    for task, users in wanted.items():
        same[frozenset(users), alike(task)].append(task)
    for tasks in same.values():
        for users in commands.chunks(wanted[tasks[0]]):
            size = max(1, ASSOCIATIONS_PER_COMMAND // len(users))
            for start in range(0, len(tasks), size):
                yield users, tasks[start : start + size]


def together(
    ledger: Ledger, tasks: Sequence[AnyTask], write: Callable[[Sequence[AnyTask]], None]
) -> None:
    """Write for all tasks at once; one by one when Slurm refuses, which it does because of any.

    Raises:
        BackendUnavailableError: nothing that follows has a chance.
    """
    ledger.writes(*tasks)
    with ledger.attempt(*tasks):
        try:
            write(tasks)
        except BackendUnavailableError:
            raise
        except TemporaryError:
            if len(tasks) == 1:
                raise
        else:
            return
    for task in ledger.alive(tasks):
        with ledger.attempt(task):
            write([task])
