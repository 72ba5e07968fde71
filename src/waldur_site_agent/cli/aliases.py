"""The command names of version 1, which sites have in scripts, probes and units.

Each is a program of its own, by its entry point in ``entry.py``; ``waldur_site_agent`` is
:func:`~waldur_site_agent.cli.main.agent`. Each takes ``-m`` and ``-c``.
"""

from waldur_site_agent.cli import commands, legacy
from waldur_site_agent.cli.legacy import accepts_mode, export_plugin_catalogue, test_order
from waldur_site_agent.cli.main import agent

create_homedirs = accepts_mode(commands.homedirs_create)
diagnose_slurm_account = accepts_mode(legacy.diagnose_slurm_account)
diagnostics = accepts_mode(commands.diagnose)
healthz = accepts_mode(legacy.healthz)
load_components = accepts_mode(commands.components_load)
load_historical_usage = accepts_mode(legacy.load_historical_usage)
sync_offering_users = accepts_mode(commands.users_sync)
sync_resource_limits = accepts_mode(commands.limits_sync)

__all__ = [
    "agent",
    "create_homedirs",
    "diagnose_slurm_account",
    "diagnostics",
    "export_plugin_catalogue",
    "healthz",
    "load_components",
    "load_historical_usage",
    "sync_offering_users",
    "sync_resource_limits",
    "test_order",
]
