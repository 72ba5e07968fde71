"""The ``backend_settings`` of a MOAB offering."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from waldur_site_agent.backends import BackendSettings, PermanentError
from waldur_site_agent.backends.account_tree import Shape
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent_moab.names import PREFIX_RULE, ROOT, account_name
from waldur_site_agent_moab.version_1 import KEYS


class MoabSettings(CommandLineSettings, BackendSettings):
    """Everything a site may say about its accounting manager; the defaults suit most."""

    version_1 = KEYS
    located_by = ("mam_bin_path",)

    default_account: str = ""
    """The account under which customers are shown; nothing is charged to it or deleted with it."""
    customer_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Customers' accounts are named this + slug."""
    project_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Projects' accounts are named this + slug."""
    allocation_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Resources' accounts are named this + slug."""
    mam_bin_path: Path | None = None
    """Directory of the ``mam-*`` commands; without it they are looked up in PATH."""
    pause_by_deactivation: bool = False
    """Whether a paused resource's account is set inactive; whether that stops jobs is up to the
    site's own configuration of MOAB."""
    deposited_after_withdrawal: Literal["stays", "falls"] = "stays"
    """What ``mam-withdraw`` does to an allocation's ``Deposited``; see docs/moab.md."""
    longest_job_days: int = Field(default=31, gt=0)
    """How long before a month jobs may have started whose charges belong to it."""
    lock_file: Path | None = None
    """Where the agents of one machine queue up; by default below ``/run/waldur-site-agent``."""

    @property
    def shape(self) -> Shape:
        """The accounts above those of resources."""
        kept = {self.default_account: "default_account"} if self.default_account else {}
        return Shape(
            top=self.default_account,
            kept=kept,
            customer_prefix=self.customer_prefix,
            project_prefix=self.project_prefix,
        )

    @field_validator("default_account")
    @classmethod
    def _usable_account(cls, value: str) -> str:
        try:
            return value if value in ("", ROOT) else account_name(value, "default_account")
        except PermanentError as error:
            raise ValueError(str(error)) from error
