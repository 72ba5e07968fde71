"""Which actions share one pass."""

from __future__ import annotations

from decimal import Decimal

import pytest

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    DeleteResource,
    RemoveMembers,
    SetAccess,
    SetLimits,
    SetMemberLimits,
)
from waldur_site_agent.backends.command_line import batches

LIMIT = {"cpu": Decimal(1)}


def sizes(*actions: Action) -> list[int]:
    return [len(batch) for batch in batches(list(actions))]


def test_everything_that_membership_sync_plans_is_one_pass() -> None:
    actions: list[Action] = []
    for account in ("a", "b", "c"):
        actions += [
            RemoveMembers(account, ("ada",)),
            AddMembers(account, ("bob", "cyd")),
            SetMemberLimits(account, "bob", LIMIT),
            SetMemberLimits(account, "dora", LIMIT),
            SetAccess(account, Access.PAUSED),
        ]
    assert sizes(*actions) == [15]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (AddMembers("a", ("ada",)), RemoveMembers("a", ("Ada",))),
        (RemoveMembers("a", ("ada",)), AddMembers("a", ("ADA", "bob"))),
        (RemoveMembers("a", ("ada",)), SetMemberLimits("a", "ada", LIMIT)),
        (SetMemberLimits("a", "ada", LIMIT), SetMemberLimits("A", "Ada", LIMIT)),
        (SetMemberLimits("a", "ada", LIMIT), RemoveMembers("a", ("ada",))),
        (SetAccess("a", Access.PAUSED), SetAccess("a", Access.NORMAL)),
        (SetLimits("a", LIMIT), SetLimits("a", LIMIT)),
        (SetAccess("a", Access.PAUSED), DeleteResource("a")),
        (DeleteResource("a"), AddMembers("a", ("ada",))),
    ],
)
def test_what_undoes_or_needs_the_other_is_a_second_pass(earlier: Action, later: Action) -> None:
    assert sizes(earlier, later) == [1, 1]
