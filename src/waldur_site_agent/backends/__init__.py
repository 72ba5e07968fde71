"""The plugin contract: what a backend is asked for, and what it answers.

A plugin author imports from here and from :mod:`waldur_site_agent.model`, from nowhere else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waldur_site_agent.backends.actions import (
        Access,
        Action,
        AddMembers,
        CreateHomeDirectories,
        CreateProjectDirectory,
        CreateResource,
        DeleteResource,
        Grant,
        MoveContainer,
        Outcome,
        Progress,
        RemoveMembers,
        ResetUsage,
        Result,
        SetAccess,
        SetBudget,
        SetLimits,
        SetMemberLimits,
        Skipped,
        members_of,
        resource_of,
    )
    from waldur_site_agent.backends.backend_settings import BackendSettings
    from waldur_site_agent.backends.checks import (
        Check,
        CheckStatus,
        DirectoryReport,
        Look,
        failed_check,
        make_checks,
    )
    from waldur_site_agent.backends.contract import Backend, Decision
    from waldur_site_agent.backends.state import BackendResource, BackendState, Capabilities
    from waldur_site_agent.backends.usernames import (
        AccountLinkingRequired,
        AdditionalValidationRequired,
        NoUsernames,
        UsernameBackend,
    )
    from waldur_site_agent.model.budget_notices import Consumption
    from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
    from waldur_site_agent.model.standing import (
        Detail,
        Effect,
        MemberStanding,
        Refusal,
        ResourceStanding,
        Standing,
        UserStanding,
    )

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
    "Capabilities",
    "Check",
    "CheckStatus",
    "Consumption",
    "CreateHomeDirectories",
    "CreateProjectDirectory",
    "CreateResource",
    "Decision",
    "DeleteResource",
    "Detail",
    "DirectoryReport",
    "Effect",
    "Grant",
    "Look",
    "MemberStanding",
    "MoveContainer",
    "NoUsernames",
    "Outcome",
    "PermanentError",
    "Progress",
    "Refusal",
    "RemoveMembers",
    "ResetUsage",
    "ResourceStanding",
    "Result",
    "SetAccess",
    "SetBudget",
    "SetLimits",
    "SetMemberLimits",
    "SiteAgentError",
    "Skipped",
    "Standing",
    "TemporaryError",
    "UserStanding",
    "UsernameBackend",
    "failed_check",
    "make_checks",
    "members_of",
    "resource_of",
]

_MODULES = (
    "model.errors",
    "backends.actions",
    "backends.backend_settings",
    "backends.checks",
    "backends.contract",
    "backends.state",
    "backends.usernames",
    "model.budget_notices",
    "model.standing",
)
"""Where the names are; those that need least come first."""


if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        """Import what is asked for: a command of a simulator starts in a third of the time."""
        if name in __all__:
            for module in _MODULES:
                found = getattr(import_module(f"waldur_site_agent.{module}"), name, None)
                if found is not None:
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
