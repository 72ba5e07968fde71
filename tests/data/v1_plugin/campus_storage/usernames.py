from waldur_site_agent.backend.backends import AbstractUsernameManagementBackend
from waldur_site_agent.backend.exceptions import (
    BackendError,
    OfferingUserAccountLinkingRequiredError,
    OfferingUserAdditionalValidationRequiredError,
)


class CampusUsernames(AbstractUsernameManagementBackend):
    def generate_username(self, offering_user):
        return self.backend_settings.get("prefix", "") + offering_user.user_username

    def get_username(self, offering_user):
        who = offering_user.user_username
        if who == "link":
            raise OfferingUserAccountLinkingRequiredError("link it", "https://id.example.com")
        if who == "validate":
            raise OfferingUserAdditionalValidationRequiredError("show your passport")
        if who == "away":
            raise BackendError("the directory is away, password hunter2")
        return "ada01" if who == "ada" else None


class OldUsernames(AbstractUsernameManagementBackend):
    def __init__(self):
        pass

    def generate_username(self, offering_user):
        return "old-" + offering_user.user_username

    def get_username(self, offering_user):
        return None
