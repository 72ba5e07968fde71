"""Defects of the agent, made on purpose: a simulation that cannot fail proves nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from waldur_site_agent.backends import locking
from waldur_site_agent.cycles import budgets as budgets_cycle
from waldur_site_agent.cycles import membership, orders
from waldur_site_agent.planning import budgets as budgets_planning
from waldur_site_agent.planning import membership as membership_planning
from waldur_site_agent.planning import usage as usage_planning
from waldur_site_agent.planning.membership import plan_membership
from waldur_site_agent.planning.plan import guard
from waldur_site_agent.planning.usage import billed
from waldur_site_agent.waldur.listing import Listing
from waldur_site_agent_slurm import budgets as slurm_budgets

Defect = Callable[[], AbstractContextManager[Any]]


@contextmanager
def _short_lists_are_believed() -> Iterator[None]:
    """Where nobody is asked about by himself, for that alone keeps people in."""
    believed = patch.object(Listing, "require_complete", lambda listing, _what: listing.items)
    with believed, _old_lists_are_believed():
        yield


def _old_lists_are_believed() -> AbstractContextManager[Any]:
    return patch.object(membership, "confirm_wanted", lambda _site, wanted, *_rest: wanted)


def _temporary_trouble_errs_orders() -> AbstractContextManager[Any]:
    def close(site: Any, order: Any, error: Any) -> Any:
        complete, fail = orders._complete, orders._fail
        return complete(site, order) if error is None else fail(site, order, error)

    return patch.object(orders, "_close", close)


def _orders_are_done_unseen() -> AbstractContextManager[Any]:
    def close(site: Any, order: Any, _error: Any) -> Any:
        return orders._complete(site, order)

    return patch.object(orders, "_close", close)


def _notes_are_forgotten() -> AbstractContextManager[Any]:
    return patch.object(
        membership_planning, "metadata_before_restricting", lambda metadata, _found: dict(metadata)
    )


def _usage_is_a_cent_too_high() -> AbstractContextManager[Any]:
    def too_high(*arguments: Any) -> Any:
        cent = Decimal("0.01")
        bills = billed(*arguments).items()
        return {n: replace(b, total=b.total + cent) if b.total else b for n, b in bills}

    return patch.object(usage_planning, "billed", too_high)


def _last_usage_is_forgotten() -> AbstractContextManager[Any]:
    return patch.object(orders, "report_last_usage", lambda *_arguments: {})


def _writers_take_no_lock() -> AbstractContextManager[Any]:
    @contextmanager
    def no_lock(path: Path, _seconds: float, _purpose: str) -> Iterator[locking.HeldLock]:
        with path.open("a") as file:
            mark = locking.mark_of_free_lock(path) or locking.Mark(0, 0)
            yield locking.HeldLock(os.dup(file.fileno()), mark)

    return patch.object(locking, "held_lock", no_lock)


def _strangers_are_removed() -> AbstractContextManager[Any]:
    def planned(wanted: Any, state: Any, people: Any, policy: Any) -> Any:
        return plan_membership(wanted, state, people, replace(policy, remove_unknown=True))

    return patch.object(membership, "plan_membership", planned)


def _removals_are_not_bounded() -> AbstractContextManager[Any]:
    def permissive(plan: Any, found: int, ending: int, thresholds: Any, **more: Any) -> Any:
        return guard(plan, found, ending, replace(thresholds, removals_allowed=True), **more)

    return patch.object(membership, "guard", permissive)


def _users_are_deleted_unseen() -> AbstractContextManager[Any]:
    return patch.object(membership, "still_in_accounts", lambda *_arguments: (frozenset(), []))


def _usage_is_reset_in_every_pass() -> AbstractContextManager[Any]:
    always = property(lambda _self: lambda: True)
    opening = patch.object(budgets_cycle, "needs_opening", lambda *_arguments: True)
    planning = patch.object(budgets_planning, "needs_opening", lambda *_arguments: True)
    reset = patch.object(budgets_planning.Opening, "needs_reset", always)
    unasked = patch.object(slurm_budgets, "too_much_counted", _always_too_much())
    return _together(opening, planning, reset, unasked)


def _always_too_much() -> Callable[..., dict[str, Decimal]]:
    asked = [0]

    def too_much(*_arguments: Any) -> dict[str, Decimal]:
        asked[0] += 1
        return {"cpu": Decimal(1)} if asked[0] % 2 else {}

    return too_much


@contextmanager
def _together(*managers: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield


DEFECTS: dict[str, Defect] = {
    defect.__name__.strip("_"): defect
    for defect in (
        _short_lists_are_believed,
        _old_lists_are_believed,
        _temporary_trouble_errs_orders,
        _orders_are_done_unseen,
        _notes_are_forgotten,
        _usage_is_a_cent_too_high,
        _last_usage_is_forgotten,
        _writers_take_no_lock,
        _strangers_are_removed,
        _removals_are_not_bounded,
        _users_are_deleted_unseen,
        _usage_is_reset_in_every_pass,
    )
}
