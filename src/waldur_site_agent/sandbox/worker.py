"""The work that a Waldur does by itself, some time after it answered."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox import offering_user_states, states

if TYPE_CHECKING:
    from waldur_site_agent.sandbox.records import Task
    from waldur_site_agent.sandbox.store import Store, Transaction


class Worker:
    """Does tasks as soon as they are there, unless it is paused: then when it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._busy = threading.Lock()
        self._paused = False

    def pause(self) -> None:
        """Let tasks pile up, as a busy server does."""
        self._paused = True

    def resume(self) -> None:
        """Do what has piled up, and from now on everything at once."""
        self._paused = False
        self.run()

    @property
    def waiting(self) -> list[Task]:
        """Tasks not done yet, oldest first."""
        return sorted(self._store.read().world.tasks.values(), key=lambda task: task.created)

    def wake(self) -> None:
        """Do what there is to do, unless paused."""
        if not self._paused:
            self.run()

    def run(self) -> int:
        """Do every waiting task, and start orders whose date has come.

        Returns:
            How many tasks it did.
        """
        done = 0
        # Somebody may add a task while the last one is being finished: hence the second look.
        while (self.waiting or _due_orders(self._store.read())) and self._busy.acquire(
            blocking=False
        ):
            try:
                done += self._run_all()
            finally:
                self._busy.release()
        return done

    def _run_all(self) -> int:
        done = 0
        if _due_orders(self._store.read()):
            with self._store.change() as tx:
                _start_due_orders(tx)
        while tasks := self.waiting:
            with self._store.change() as tx:
                _carry_out(tx, tasks[0])
            done += 1
        return done


def _due_orders(tx: Transaction) -> list[str]:
    today = tx.now.date()
    return [
        order.uuid
        for order in tx.world.orders.values()
        if order.state == "pending-start-date"
        and order.start_date is not None
        and order.start_date <= today
    ]


def _start_due_orders(tx: Transaction) -> None:
    for uuid in _due_orders(tx):
        states.start(tx, tx.world.orders[uuid])


def _carry_out(tx: Transaction, task: Task) -> None:
    if task.uuid not in tx.world.tasks:
        return
    tx.world.remove(task)
    if task.kind == "process_order" and task.subject in tx.world.orders:
        states.process(tx, tx.world.orders[task.subject])
    elif task.kind == "name_members" and task.subject in tx.world.resources:
        offering_user_states.name_members(tx, tx.world.resources[task.subject])
