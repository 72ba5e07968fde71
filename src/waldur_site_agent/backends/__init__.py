"""The plugin contract: what a backend is asked for, and what it answers.

A plugin author imports from here and from :mod:`waldur_site_agent.model`, from nowhere else.
"""

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
