"""What the steps of one batch share: the state by now, and what each action did so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.backends import LeftOut, PermanentError
from waldur_site_agent_moab.names import account_name

if TYPE_CHECKING:
    from waldur_site_agent.backends import SiteAgentError
    from waldur_site_agent_moab.client import MamClient
    from waldur_site_agent_moab.commands import Argv
    from waldur_site_agent_moab.holdings import Account, Mam
    from waldur_site_agent_moab.settings import MoabSettings


@dataclass(slots=True)
class Progress:
    """What became of one action so far."""

    error: SiteAgentError | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    has_written: bool = False

    def leave_out(self, name: str, error: SiteAgentError) -> None:
        """Note that one member is not served, while the others are."""
        self.left_out.append(LeftOut(name, error))


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
