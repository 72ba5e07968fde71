"""The command names of version 1, which sites have in scripts and units.

``pyproject.toml`` installs each as a program of its own; ``waldur_site_agent`` is
:func:`~waldur_site_agent.cli.main.agent`.
"""

from waldur_site_agent.cli.commands import components_load as load_components
from waldur_site_agent.cli.commands import diagnose as diagnostics
from waldur_site_agent.cli.commands import homedirs_create as create_homedirs
from waldur_site_agent.cli.commands import limits_sync as sync_resource_limits
from waldur_site_agent.cli.commands import users_sync as sync_offering_users
from waldur_site_agent.cli.main import agent

__all__ = [
    "agent",
    "create_homedirs",
    "diagnostics",
    "load_components",
    "sync_offering_users",
    "sync_resource_limits",
]
