"""The ``backend_settings`` of a Slurm offering."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator

from waldur_site_agent.backends import BackendSettings, PermanentError
from waldur_site_agent.backends.homes import HomeSettings
from waldur_site_agent.backends.naming import PREFIX_RULE
from waldur_site_agent_slurm.facts import ROOT
from waldur_site_agent_slurm.names import account_name

SuspendedTime: TypeAlias = Literal["excluded", "cpu", "counted"]
UsageSource: TypeAlias = Literal["alloctres", "reqtres"]

_FIELDS: dict[UsageSource, str] = {"alloctres": "AllocTRES", "reqtres": "ReqTRES"}


@dataclass(frozen=True, slots=True)
class Rules:
    """One way of counting."""

    suspended: SuspendedTime = "excluded"
    """``excluded``: suspended time counts for nothing; ``cpu``: for everything but cpu;
    ``counted``: for everything."""
    tres_field: str = "AllocTRES"
    resized_once: bool = True
    """Whether a resized job counts once; sreport counts the time before the resize again."""

    def leaves_out_suspension(self, tres: str) -> bool:
        """Whether the time that a job was suspended does not count for this TRES."""
        return self.suspended == "excluded" or (self.suspended == "cpu" and tres == "cpu")


SREPORT = Rules(suspended="cpu", resized_once=False)
"""As slurmdbd adds up: found by experiment."""


def rules_of(settings: SlurmSettings) -> Rules:
    """Return the way of counting that a site has chosen."""
    return Rules(settings.suspended_time, _FIELDS[settings.usage_source])


class SlurmSettings(HomeSettings, BackendSettings):
    """Everything a site may say about its cluster; the defaults suit a cluster of its own."""

    located_by = ("cluster", "slurm_bin_path")

    default_account: str = ROOT
    """DefaultAccount of users that are new to the cluster, and the parent of customers."""
    customer_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Customers' accounts are named this + slug."""
    project_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Projects' accounts are named this + slug."""
    allocation_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Resources' accounts are named this + slug."""
    qos_downscaled: str = ""
    """The QOS of accounts that are downscaled; must exist on the cluster."""
    qos_paused: str = ""
    """The QOS of accounts that are paused; must exist on the cluster."""
    qos_default: str = "normal"
    """The QOS of accounts that are usable without restriction."""
    slurm_bin_path: Path | None = None
    """Directory of ``sacctmgr`` and its companions; without it they are looked up in PATH."""
    cluster: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")
    """Needed only where one slurmdbd serves several clusters."""
    require_system_user: bool = True
    """Whether members wait until the operating system knows them."""
    cancel_jobs_on_removal: bool = True
    """Whether the jobs of somebody who leaves an account are cancelled; otherwise such a member
    stays until they are over. Deleting a resource always ends its jobs."""
    suspended_time: SuspendedTime = "excluded"
    """Whether the time that a job was suspended counts: for no TRES, for every one but ``cpu``
    (as sreport has it), or for every one (as Slurm's limits have it)."""
    usage_source: UsageSource = "alloctres"
    """Whether jobs count with what they were given or with what they asked for."""
    usage_check: bool = False
    """Whether a closed month is compared with sreport."""
    usage_timeout_seconds: float = Field(default=600, gt=0)
    """For each command that reads usage; sacct takes about half a minute for a million jobs."""
    lock_file: Path | None = None
    """Where the writers of one cluster queue up; by default below ``/run/waldur-site-agent``."""

    @field_validator("default_account")
    @classmethod
    def _usable_account(cls, value: str) -> str:
        try:
            return value if value == ROOT else account_name(value, "default_account")
        except PermanentError as error:
            raise ValueError(str(error)) from error

    @field_validator("cluster")
    @classmethod
    def _cluster_as_stored(cls, value: str | None) -> str | None:
        return value.lower() if value else value
