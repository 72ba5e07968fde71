"""A username backend that stands in front of a plugin of version 1."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from waldur_site_agent.backends import (
    AccountLinkingRequired,
    AdditionalValidationRequired,
    BackendSettings,
    UsernameBackend,
)
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent_v1_plugins.errors import sorted_error
from waldur_site_agent_v1_plugins.interface.backend import exceptions as v1
from waldur_site_agent_v1_plugins.interface.backend.backends import (
    AbstractUsernameManagementBackend,
)
from waldur_site_agent_v1_plugins.interface.common.structures import Offering
from waldur_site_agent_v1_plugins.records import offering_user_object
from waldur_site_agent_v1_plugins.settings import V1Settings, secrets_in


class V1UsernameBackend(UsernameBackend):
    """Asks a plugin of version 1 for usernames.

    ``username_management_settings`` is what the plugin gets as ``backend_settings``.
    """

    Settings: ClassVar[type[BackendSettings]] = V1Settings
    interface: ClassVar[str] = "version 1"
    cls: ClassVar[type[AbstractUsernameManagementBackend]]
    name: ClassVar[str]

    def __init__(self, settings: V1Settings) -> None:
        super().__init__(settings)
        self._written = settings.as_written()
        self._secrets = [*secrets_in(self._written)]

    def get_username(self, offering_user: OfferingUser) -> str | None:
        """The name that the person has, if the plugin does not give both in one call."""
        if self._gives_both():
            return None
        return self._ask("get_username", offering_user)

    def generate_username(self, offering_user: OfferingUser) -> str | None:
        """The name that the plugin gives."""
        return self._ask("get_or_create_username", offering_user)

    def _gives_both(self) -> bool:
        ours = AbstractUsernameManagementBackend.get_or_create_username
        return getattr(self.cls, "get_or_create_username", ours) is not ours

    def _ask(self, method: str, offering_user: OfferingUser) -> str | None:
        try:
            plugin = self._instance()
            if not _is_authoritative(plugin):
                return None
            found = getattr(plugin, method)(offering_user_object(offering_user))
        except v1.OfferingUserAccountLinkingRequiredError as error:
            raise AccountLinkingRequired(error.message, error.comment_url or "") from error
        except v1.OfferingUserAdditionalValidationRequiredError as error:
            raise AdditionalValidationRequired(error.message, error.comment_url or "") from error
        except Exception as error:
            what = f"{offering_user.user_username}: the plugin {self.name} gave no username"
            raise sorted_error(what, error, secrets=self._secrets) from error
        return str(found) if found else None

    def _instance(self) -> AbstractUsernameManagementBackend:
        offering = Offering(name=self.name, backend_settings=self._written)
        if len(inspect.signature(self.cls).parameters) == 0:
            return self.cls()
        return self.cls(backend_settings=self._written, offering=offering)


def _is_authoritative(plugin: Any) -> bool:
    found = plugin.is_username_authoritative
    return bool(found() if callable(found) else found)
