"""Stands for ``waldur_site_agent.backend.exceptions``."""

from __future__ import annotations


class BackendError(Exception):
    """Something went wrong at the backend."""


class DuplicateResourceError(BackendError):
    """A resource of this id exists already."""

    def __init__(self, resource_id: str = "", *args: object) -> None:
        super().__init__(f"Resource {resource_id} already exists", *args)
        self.resource_id = resource_id


class UserNotProvisionedError(BackendError):
    """The user is not known to the backend yet; tried again later."""


class BackendNotReadyError(Exception):
    """The backend is not ready; everything stays as it is until later."""


class ConfigurationError(Exception):
    """The settings of the plugin cannot be used."""


class _UserActionError(Exception):
    def __init__(self, message: str = "", comment_url: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.comment_url = comment_url


class OfferingUserAccountLinkingRequiredError(_UserActionError):
    """The person must link an account first."""


class OfferingUserAdditionalValidationRequiredError(_UserActionError):
    """The person must be validated first."""
