"""The contract of plugins that give people their usernames at the site."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import SiteAgentError

if TYPE_CHECKING:
    from waldur_site_agent.model.people import OfferingUser


class UserActionRequired(SiteAgentError):  # noqa: N818 - sites know its children by these names
    """The person must do something before a username can be given; tried again each cycle."""

    def __init__(self, message: str, url: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.url = url


class AccountLinkingRequired(UserActionRequired):
    """The person must link an existing account first."""


class AdditionalValidationRequired(UserActionRequired):
    """The person must be validated by other means first."""


class UsernameBackend(ABC):
    """Finds or makes the username of a person at this site."""

    @abstractmethod
    def get_username(self, offering_user: OfferingUser) -> str | None:
        """Return the username that the person already has at the site, or ``None``."""

    @abstractmethod
    def generate_username(self, offering_user: OfferingUser) -> str | None:
        """Make a username for the person; ``None`` when this backend makes none.

        Raises:
            AccountLinkingRequired, AdditionalValidationRequired: the person must act first.
        """
