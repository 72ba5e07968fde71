"""What an action is about, asked in one way of every kind."""

from __future__ import annotations

from typing import get_args

import pytest

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    CreateHomeDirectories,
    CreateProjectDirectory,
    CreateResource,
    DeleteResource,
    MoveContainer,
    RemoveMembers,
    ResetUsage,
    SetAccess,
    SetBudget,
    SetLimits,
    SetMemberLimits,
    members_of,
    resource_of,
)
from waldur_site_agent.model.backend import Container, Placement

PLACEMENT = Placement(id="ocean", title="Ocean", parent="p", organization="p", containers=())
CONTAINER = Container(kind="project", id="climate", parent="uni", title="", organization="climate")
CASES: list[tuple[Action, str, tuple[str, ...]]] = [
    (CreateResource(PLACEMENT), "ocean", ()),
    (DeleteResource("ocean"), "ocean", ()),
    (MoveContainer((CONTAINER,), "lab"), "climate", ()),
    (SetLimits("ocean", {}), "ocean", ()),
    (AddMembers("ocean", ("ada", "bob")), "ocean", ("ada", "bob")),
    (RemoveMembers("ocean", ("ada",)), "ocean", ("ada",)),
    (SetMemberLimits("ocean", "ada", {}), "ocean", ()),
    (SetAccess("ocean", Access.PAUSED), "ocean", ()),
    (SetBudget("ocean", {}), "ocean", ()),
    (ResetUsage("ocean", "2026-Q4"), "ocean", ()),
    (CreateHomeDirectories(("ada",)), "", ()),
    (CreateProjectDirectory("ocean"), "ocean", ()),
]


@pytest.mark.parametrize(("action", "resource", "members"), CASES)
def test_every_action_says_which_resource_and_which_members_it_changes(
    action: Action, resource: str, members: tuple[str, ...]
) -> None:
    assert (resource, members) == (resource_of(action), members_of(action))


def test_no_kind_of_action_is_forgotten_here() -> None:
    assert set(get_args(Action)) == {type(action) for action, _, _ in CASES}
