"""The keys of version 1 in the ``backend_settings`` of MOAB, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping

from waldur_site_agent.backends.version_1 import COMMON, HOMES, OldKey, done

KEYS: Mapping[str, OldKey] = {
    "default_account": done(),
    "customer_prefix": done(),
    "project_prefix": done(),
    "allocation_prefix": done(),
    **HOMES,
    "enable_user_homedir_account_creation": done(
        "members get home directories unless it is false; version 1 made none with MOAB",
        differs=True,
    ),
    **COMMON,
}
