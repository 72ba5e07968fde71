"""The ``backend_settings`` of a Slurm offering."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from waldur_site_agent.backends import BackendSettings, PermanentError
from waldur_site_agent_slurm.homes import umask_of
from waldur_site_agent_slurm.names import PREFIX_RULE, ROOT, account_name


class SlurmSettings(BackendSettings):
    """Everything a site may say about its cluster; the defaults suit a cluster of its own."""

    default_account: str = ROOT
    """DefaultAccount of users that are new to the cluster, and the parent of customers."""
    customer_prefix: str = Field(default="", pattern=PREFIX_RULE)
    project_prefix: str = Field(default="", pattern=PREFIX_RULE)
    allocation_prefix: str = Field(default="", pattern=PREFIX_RULE)
    qos_downscaled: str = ""
    qos_paused: str = ""
    qos_default: str = "normal"
    enable_user_homedir_account_creation: bool = True
    homedir_umask: str = Field(default="0700", pattern=r"^0?[0-7]{3,4}$")
    """A umask, or a mode: see :func:`waldur_site_agent_slurm.homes.umask_of`."""
    slurm_bin_path: Path | None = None
    """Directory of ``sacctmgr`` and its companions; without it they are looked up in PATH."""
    cluster: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")
    """Needed only where one slurmdbd serves several clusters."""
    command_timeout_seconds: float = Field(default=60, gt=0)
    """For reading commands; writing commands get more, by their size."""
    require_system_user: bool = True
    cancel_jobs_on_removal: bool = True
    """Whether the jobs of somebody who leaves an account are cancelled; otherwise such a member
    stays until they are over. Deleting a resource always ends its jobs."""
    lock_file: Path | None = None
    """Where the writers of one cluster queue up; by default below ``/run/waldur-site-agent``."""

    @field_validator("default_account")
    @classmethod
    def _usable_account(cls, value: str) -> str:
        try:
            return value if value == ROOT else account_name(value, "default_account")
        except PermanentError as error:
            raise ValueError(str(error)) from error

    @field_validator("homedir_umask", mode="before")
    @classmethod
    def _octal_number_of_yaml(cls, value: object) -> object:
        """Without quotes YAML reads ``0700`` as the number 448."""
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return f"{value:04o}" if is_number else value

    @field_validator("homedir_umask")
    @classmethod
    def _usable_umask(cls, value: str) -> str:
        umask_of(value)
        return value

    @field_validator("cluster")
    @classmethod
    def _cluster_as_stored(cls, value: str | None) -> str | None:
        return value.lower() if value else value
