"""The keys of version 1 that it read from the ``backend_settings`` of any backend."""

from __future__ import annotations

from collections.abc import Mapping

from waldur_site_agent.config.switching import (
    Answer,
    Effect,
    OldDefault,
    OldKey,
    done,
    is_off,
    later,
    not_needed,
    not_supported,
    renamed,
    unless_enabled,
    unless_other_than,
)

__all__ = [
    "COMMON",
    "HOMES",
    "Answer",
    "Effect",
    "OldDefault",
    "OldKey",
    "done",
    "is_off",
    "later",
    "not_needed",
    "not_supported",
    "renamed",
    "unless_enabled",
    "unless_other_than",
]

COMMON: Mapping[str, OldKey] = {
    "soft_delete": not_supported(
        "set it to false; a terminated resource is deleted with its account"
    ),
    "check_backend_id_uniqueness": done(
        "an order waits where Waldur's history cannot be read; version 1 took the name",
        differs=True,
    ),
    "check_all_offerings": not_needed("every offering that the token may see is looked at"),
    "backend_id_max_retries": done(
        "names that are tried after the first, where the offering names by project; 50 in version 1"
    ),
    "periodic_limits": not_supported(
        "set enabled: false; Slurm alone has limits for a period", unless_enabled()
    ),
    "ldap": not_supported(
        "remove this section and have the directory's own tools make users and groups; or move it "
        "to username_management_settings of version 1's LDAP plugin (username_management_backend: "
        "ldap), which makes usernames behind the adapter waldur-site-agent-v1-plugins"
    ),
}
"""What the core of version 1 read itself, whatever the backend."""

HOMES: Mapping[str, OldKey] = {
    "enable_user_homedir_account_creation": done(),
    "default_homedir_umask": renamed("homedir_umask"),
    "homedir_base_path": done(
        "users whose home the operating system has elsewhere get none from the agent"
    ),
    "homedir_quota": done(
        "set once, for homes that the agent makes, and by `waldur-site-agent directories repair` "
        "for others; version 1 set it for every home in every pass, and not at all where a number "
        "stood without quotes",
        differs=True,
    ),
}
"""For backends that make home directories."""
