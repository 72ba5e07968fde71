"""The MOAB plugin's ``backend_settings``."""

from waldur_site_agent.backends import BackendSettings


class MoabSettings(BackendSettings):
    """Names of accounts are prefix + slug; the tree is told by each account's organization."""

    default_account: str = ""
    customer_prefix: str = ""
    project_prefix: str = ""
    allocation_prefix: str = ""
    enable_user_homedir_account_creation: bool = True
