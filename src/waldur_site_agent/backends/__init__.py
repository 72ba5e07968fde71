"""The plugin contract: what a backend is asked for, and what it answers.

A plugin author imports from here and from :mod:`waldur_site_agent.model`, from nowhere else.
"""

from waldur_site_agent.backends.actions import (
    Access,
    Action,
    AddMembers,
    BackendResource,
    BackendState,
    Check,
    CheckStatus,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    Outcome,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    SetMemberLimits,
    Skipped,
)
from waldur_site_agent.backends.contract import (
    AccountLinkingRequired,
    AdditionalValidationRequired,
    Backend,
    BackendSettings,
    Look,
    NoUsernames,
    UsernameBackend,
    failed_check,
    make_checks,
)
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError

__all__ = [
    "Access",
    "AccountLinkingRequired",
    "Action",
    "AddMembers",
    "AdditionalValidationRequired",
    "Backend",
    "BackendResource",
    "BackendSettings",
    "BackendState",
    "Check",
    "CheckStatus",
    "CreateHomeDirectories",
    "CreateResource",
    "DeleteResource",
    "Look",
    "NoUsernames",
    "Outcome",
    "PermanentError",
    "RemoveMembers",
    "Result",
    "SetAccess",
    "SetLimits",
    "SetMemberLimits",
    "SiteAgentError",
    "Skipped",
    "TemporaryError",
    "UsernameBackend",
    "failed_check",
    "make_checks",
]
