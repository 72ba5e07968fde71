"""What every username plugin offers the agent: the name of a person at the site."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID

from waldur_site_agent.backends.backend_settings import BackendSettings
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import OfferingUser


class UserActionRequired(SiteAgentError):  # noqa: N818 - sites know its children by these names
    """The person must do something before a username can be given; tried again each cycle.

    The message and the link are shown to the person in Waldur. Keep both the same from cycle to
    cycle: each change costs requests, and may send the person a mail.
    """

    def __init__(self, message: str, url: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.url = url


class AccountLinkingRequired(UserActionRequired):
    """The person must link an existing account first."""


class AdditionalValidationRequired(UserActionRequired):
    """The person must be validated by other means first."""


class UsernameBackend(ABC):
    """Finds or makes the username of a person at this site.

    It is asked about one person after the other, never in parallel. ``TemporaryError`` leaves the
    person as it is until the next cycle, ``PermanentError`` marks the account as failed in Waldur
    (and is tried again each cycle all the same); anything else counts as a defect of the plugin
    and is treated as temporary.
    """

    Settings: ClassVar[type[BackendSettings]] = BackendSettings
    """The model against which ``username_management_settings`` is checked at start."""

    generating_has_effects: ClassVar[bool] = True
    """Whether :meth:`generate_username` changes anything at the site, such as a directory.

    A dry run does not call it then, and only says that a name would be made.
    """

    def __init__(self, settings: BackendSettings) -> None:
        """Remember, but do nothing yet: a constructor neither reads nor starts anything."""
        self.settings = settings

    def names_held(self, holders: Mapping[str, frozenset[UUID]]) -> None:  # noqa: B027 - optional
        """Hear which names are taken: called once per cycle, before anybody is asked about.

        Args:
            holders: for each name in Waldur, in lower case, the people (``user_uuid``) who have
                it, whatever the state of their account but Deleted. What is given in the course
                of the cycle is not added.
        """

    @abstractmethod
    def get_username(self, offering_user: OfferingUser) -> str | None:
        """Return the username that the person already has at the site, or ``None``.

        Never changes anything.

        Raises:
            AccountLinkingRequired, AdditionalValidationRequired: the person must act first.
        """

    @abstractmethod
    def generate_username(self, offering_user: OfferingUser) -> str | None:
        """Make a username for the person; ``None`` when this backend makes none.

        Raises:
            AccountLinkingRequired, AdditionalValidationRequired: the person must act first.
        """

    def close(self) -> None:
        """Give back what the backend holds; called once, when the agent stops."""
        return


class NoUsernames(UsernameBackend):
    """Makes no usernames and knows none: nobody's account is touched."""

    generating_has_effects = False

    def get_username(self, offering_user: OfferingUser) -> str | None:  # noqa: ARG002 - the contract's
        """No name is known."""
        return None

    def generate_username(self, offering_user: OfferingUser) -> str | None:  # noqa: ARG002 - the contract's
        """No name is made."""
        return None
