"""The ``backend_settings`` of a Slurm offering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from waldur_site_agent.backends import BackendSettings, PermanentError
from waldur_site_agent.backends.account_tree import Shape
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent.backends.naming import PREFIX_RULE
from waldur_site_agent.model.backend import ContainerKind
from waldur_site_agent.model.settings import Section
from waldur_site_agent_slurm.facts import ROOT
from waldur_site_agent_slurm.names import account_name
from waldur_site_agent_slurm.version_1 import DEFAULTS, KEYS

DefaultAccountPolicy: TypeAlias = Literal["common", "individual", "none"]
SuspendedTime: TypeAlias = Literal["excluded", "cpu", "counted"]
RequeuedJobs: TypeAlias = Literal["every_run", "last_run"]
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
    every_run: bool = True
    """Whether all runs of a requeued job count, or only the last one within the period."""

    def leaves_out_suspension(self, tres: str) -> bool:
        """Whether the time that a job was suspended does not count for this TRES."""
        return self.suspended == "excluded" or (self.suspended == "cpu" and tres == "cpu")


SREPORT = Rules(suspended="cpu", resized_once=False)
"""As slurmdbd adds up: found by experiment."""


def rules_of(settings: SlurmSettings) -> Rules:
    """Return the way of counting that a site has chosen."""
    every_run = settings.requeued_jobs == "every_run"
    return Rules(
        suspended=settings.suspended_time,
        tres_field=_FIELDS[settings.usage_source],
        resized_once=every_run,  # with last_run, sacct lists only the last size
        every_run=every_run,
    )


_ONE_TRES = r"[a-z]+(/[A-Za-z0-9_:]+)?=[0-9]+[KMGTP]?"
_TRES_LIST = rf"^({_ONE_TRES}(,{_ONE_TRES})*)?$"
_WORDS = r"^([A-Za-z]+(,[A-Za-z]+)*)?$"
_WALL_TIME = r"^([0-9]+(-[0-9]{1,2}(:[0-9]{2}){0,2}|(:[0-9]{2}){0,2}))?$"
_QOS_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,100}$"
_PARTITION_NAME = r"^[A-Za-z0-9_-]{1,100}$"


class QosManagement(Section):
    """A QOS of its own for each account, named like it."""

    enabled: bool = False
    """Whether an account gets one when it is made; needs AdminLevel Administrator."""
    flags: str = Field(default="DenyOnLimit,NoDecay", pattern=_WORDS)
    """Its flags."""
    grp_tres: str = Field(default="", pattern=_TRES_LIST)
    """Its GrpTRES, such as ``cpu=100,gres/gpu=4``."""
    max_jobs: int | None = Field(default=None, ge=0)
    """Its MaxJobsPerUser."""
    max_submit: int | None = Field(default=None, ge=0)
    """Its MaxSubmitJobsPerUser."""
    max_wall: str = Field(default="", pattern=_WALL_TIME)
    """Its MaxWall, such as ``2-00:00:00``; a plain number is in minutes."""
    min_tres_per_job: str = Field(default="", pattern=_TRES_LIST)
    """Its MinTRESPerJob."""
    additional_qos: tuple[Annotated[str, Field(pattern=_QOS_NAME)], ...] = ()
    """What else the account's QOS list has, besides its own and what it inherits."""
    skip_qos_swap: bool = False
    """Whether accounts are paused, and downscaled, by GrpSubmitJobs=0 and keep their QOS."""
    apply_limits_to_qos: bool = False
    """Whether the limits of a resource are set on its QOS instead of its account."""

    @field_validator("max_wall", mode="before")
    @classmethod
    def _number_is_minutes(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value or ""

    @field_validator("grp_tres", "min_tres_per_job", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: object) -> object:
        return value or ""

    @field_validator("additional_qos", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or ()

    @model_validator(mode="after")
    def _limits_need_a_qos_that_stays(self) -> QosManagement:
        if self.apply_limits_to_qos and not (self.enabled and self.skip_qos_swap):
            raise ValueError(
                "apply_limits_to_qos needs enabled: true and skip_qos_swap: true: without a QOS "
                "that stays with the account its limits would be lost"
            )
        return self

    @property
    def columns(self) -> Mapping[str, str]:
        """What is set on a new QOS, by the name that sacctmgr takes."""
        values = {
            "Flags": self.flags,
            "GrpTRES": self.grp_tres,
            "MaxJobsPerUser": self.max_jobs,
            "MaxSubmitJobsPerUser": self.max_submit,
            "MaxWall": self.max_wall,
            "MinTRESPerJob": self.min_tres_per_job,
        }
        return {key: str(value) for key, value in values.items() if value not in ("", None)}


class PeriodicLimits(Section):
    """Budgets that a periodic policy in Waldur gives to resources."""

    enabled: bool = False
    """Whether the agent sets them: limits, fairshare and, where the policy resets usage, RawUsage,
    for which it needs AdminLevel Administrator."""
    limit_type: Literal["GrpTRESMins", "MaxTRESMins", "GrpTRES"] = "GrpTRESMins"
    """The limit that is set where the policy does not name one."""

    @model_validator(mode="before")
    @classmethod
    def _no_emulator(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return {} if value is None else value
        if str(value.get("emulator_mode", False)).lower() not in ("false", "none", "", "0", "no"):
            raise ValueError(
                "emulator_mode is not supported: it was for tests of version 1; remove it"
            )
        return {k: v for k, v in value.items() if k not in ("emulator_mode", "emulator_base_url")}


class SlurmSettings(CommandLineSettings, BackendSettings):
    """Everything a site may say about its cluster; the defaults suit a cluster of its own."""

    version_1 = KEYS
    version_1_defaults = DEFAULTS
    located_by = ("cluster", "slurm_bin_path")

    default_account: str = ROOT
    """DefaultAccount of users that are new to the cluster, and the parent of customers where
    neither ``root_account`` nor ``parent_account`` is set."""
    default_account_policy: DefaultAccountPolicy = "common"
    """The DefaultAccount that members get. ``common``: ``default_account``, if they are new to the
    cluster; ``individual``: the account that they join; ``none``: Slurm's choice, which is the
    first account of a user."""
    root_account: str = ""
    """The parent of customers' accounts, if it is another than ``default_account``."""
    parent_account: str = ""
    """A flat tree: no accounts of customers, and those of projects directly below this one."""
    parent_account_holds: Literal["projects", "allocations"] = "projects"
    """What is made directly below ``parent_account``: accounts of projects, with the resources'
    own below them, or the resources' own and no others."""
    customer_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Customers' accounts are named this + slug."""
    project_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Projects' accounts are named this + slug."""
    allocation_prefix: str = Field(default="", pattern=PREFIX_RULE)
    """Resources' accounts are named this + slug."""
    soft_delete: bool = False
    """Whether the account of a terminated resource stays, without members and with limits of zero;
    an order to restore the resource opens it again."""
    fairshare_of_members: Literal["own", "parent"] = "own"
    """Whether new members have a share of their own, or that of their account (Share=parent)."""
    default_partition: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,100}$")
    """The only partition that associations of new members are for; without it, every one."""
    enforce_offering_partitions: bool = False
    """Whether new members get an association for each partition of the offering in Waldur, if it
    has any, instead."""
    qos_enforcement_enabled: bool = False
    """Whether new members get the QOS, and the partition, that were chosen with the order."""
    enforce_offering_qos: bool | None = None
    """With ``qos_enforcement_enabled``: ``true`` always, ``false`` never; without it the offering's
    own option ``enforce_qos`` in Waldur decides."""
    allowed_qos: tuple[Annotated[str, Field(pattern=_QOS_NAME)], ...] = ()
    """The QOS that orders may name where the offering lists none in Waldur; without it, none."""
    allowed_partitions: tuple[Annotated[str, Field(pattern=_PARTITION_NAME)], ...] = ()
    """The partitions that orders may name where the offering lists none in Waldur; without it,
    ``default_partition``, or any where members may use every one anyway."""
    qos_downscaled: str = ""
    """The QOS of accounts that are downscaled; must exist on the cluster."""
    qos_paused: str = ""
    """The QOS of accounts that are paused; must exist on the cluster. Without it they are paused
    by GrpSubmitJobs=0."""
    qos_management: QosManagement = QosManagement()
    """A QOS of its own for each account."""
    periodic_limits: PeriodicLimits = PeriodicLimits()
    """Whether budgets of a periodic policy in Waldur are set."""
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
    requeued_jobs: RequeuedJobs = "every_run"
    """Whether a requeued job counts with every run, or only with the last one of a month, as
    version 1 counted. With ``last_run`` a resized job counts with its last size all the time."""
    usage_check: bool = False
    """Whether a closed month is compared with sreport."""
    usage_timeout_seconds: float = Field(default=600, gt=0)
    """For each command that reads usage; sacct takes about half a minute for a million jobs."""
    lock_file: Path | None = None
    """Where the writers of one cluster queue up; by default below ``/run/waldur-site-agent``."""

    @property
    def pauses_by_submit_limit(self) -> bool:
        """Whether paused accounts get GrpSubmitJobs=0."""
        return not self.pauses_by_qos

    @property
    def pauses_by_qos(self) -> bool:
        """Whether paused accounts get another QOS."""
        return bool(self.qos_paused) and not self.grants_qos_to_members

    @property
    def downscales_by_qos(self) -> bool:
        """Whether downscaled accounts get another QOS; otherwise they are paused."""
        return not (self.grants_qos_to_members or self.qos_management.skip_qos_swap)

    @property
    def limits_are_on_qos(self) -> bool:
        """Whether the limits of a resource are those of its QOS, not of its account."""
        return self.qos_management.apply_limits_to_qos

    @property
    def grants_qos_to_members(self) -> bool:
        """Whether members have a QOS of their own, which that of their account does not reach."""
        return self.qos_enforcement_enabled and self.enforce_offering_qos is not False

    @property
    def shape(self) -> Shape:
        """The accounts above those of resources."""
        named = {
            key: name
            for key in ("parent_account", "root_account", "default_account")
            if (name := str(getattr(self, key)))
        }
        kept = {ROOT: "default_account", **{name: key for key, name in named.items()}}
        top_key = next(iter(named))
        if top_key != "parent_account":
            return Shape(
                top=named[top_key],
                top_key=top_key,
                kept=kept,
                customer_prefix=self.customer_prefix,
                project_prefix=self.project_prefix,
            )
        kinds: tuple[ContainerKind, ...] = (
            ("project",) if self.parent_account_holds == "projects" else ()
        )
        return Shape(top=self.parent_account, top_key=top_key, kinds=kinds, kept=kept)

    @model_validator(mode="after")
    def _no_qos_that_is_never_set(self) -> SlurmSettings:
        unused = [key for key in ("qos_paused", "qos_downscaled") if getattr(self, key)]
        unused += ["qos_default"] if "qos_default" in self.model_fields_set else []
        if self.qos_management.skip_qos_swap and unused:
            raise ValueError(
                f"qos_management.skip_qos_swap and {unused[0]} are both set: with the one no "
                "account gets another QOS; remove one of them"
            )
        return self

    @field_validator("qos_management", "periodic_limits", mode="before")
    @classmethod
    def _no_qos_management(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("root_account", "parent_account", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: object) -> object:
        return value or ""

    @field_validator("default_account", "root_account", "parent_account")
    @classmethod
    def _usable_account(cls, value: str, info: ValidationInfo) -> str:
        try:
            if value == ROOT or (not value and info.field_name != "default_account"):
                return value
            return account_name(value, str(info.field_name))
        except PermanentError as error:
            raise ValueError(str(error)) from error

    @field_validator("cluster")
    @classmethod
    def _cluster_as_stored(cls, value: str | None) -> str | None:
        return value.lower() if value else value
