"""What the steps of one batch share: the state by now, and what each action did so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    PermanentError,
    RemoveMembers,
    SetAccess,
    SetLimits,
    SiteAgentError,
    Skipped,
)
from waldur_site_agent_moab.client import MamClient
from waldur_site_agent_moab.commands import Argv
from waldur_site_agent_moab.facts import Account, Mam
from waldur_site_agent_moab.names import account_name
from waldur_site_agent_moab.settings import MoabSettings


@dataclass(slots=True)
class Progress:
    """What became of one action so far."""

    error: SiteAgentError | None = None
    skipped: list[Skipped] = field(default_factory=list)
    has_written: bool = False

    def leave_out(self, name: str, error: SiteAgentError) -> None:
        """Note that one member is not served, while the others are."""
        self.skipped.append(Skipped(name, error))


@dataclass(slots=True)
class Work:
    """Everything that one action is carried out with."""

    client: MamClient
    settings: MoabSettings
    mam: Mam
    """As it was read, with what the commands since then should have changed."""
    progress: Progress = field(default_factory=Progress)

    def write(self, argv: Argv) -> None:
        """Run a writing command for the action in hand."""
        self.progress.has_written = True
        self.client.write(argv)

    def account(self, name: str) -> Account:
        """The account that an action is about.

        Raises:
            PermanentError: the name cannot be used, or there is no such account.
        """
        key = account_name(name, "account")
        account = self.mam.accounts.get(key)
        if account is None:
            raise PermanentError(
                f'{key}: there is no account "{key}" in the accounting manager; it was removed, '
                "or never made"
            )
        return account


MamAction: TypeAlias = (
    CreateResource | DeleteResource | SetLimits | AddMembers | RemoveMembers | SetAccess
)


def batches(actions: Sequence[MamAction]) -> list[list[MamAction]]:
    """Cut the list where an action may undo what one before it did.

    Within a batch no account is the subject of two actions, and none that is deleted is needed
    by another action.
    """
    result: list[list[MamAction]] = [[]]
    for action in actions:
        if any(not _go_together(earlier, action) for earlier in result[-1]):
            result.append([])
        result[-1].append(action)
    return result


def _go_together(one: MamAction, other: MamAction) -> bool:
    if one.resource.lower() == other.resource.lower():
        return False
    if isinstance(one, DeleteResource) == isinstance(other, DeleteResource):
        return True
    return _accounts(one).isdisjoint(_accounts(other))


def _accounts(action: MamAction) -> frozenset[str]:
    names = {action.resource.lower()}
    if isinstance(action, CreateResource):
        names.update(container.id for container in action.placement.containers)
    if isinstance(action, DeleteResource) and action.project_container is not None:
        names.add(action.project_container.lower())
    return frozenset(names)
