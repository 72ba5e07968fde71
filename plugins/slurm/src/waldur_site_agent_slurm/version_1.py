"""The keys of version 1 in the ``backend_settings`` of Slurm, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping

from waldur_site_agent.backends.version_1 import (
    COMMON,
    HOMES,
    OldDefault,
    OldKey,
    done,
    not_needed,
    not_supported,
    renamed,
    unless_other_than,
)

KEYS: Mapping[str, OldKey] = {
    "slurm_bin_path": done("without it PATH; in version 1 `/usr/bin`"),
    "cluster_name": renamed("cluster"),
    "default_account": done("the DefaultAccount of users who are new to the cluster; must exist"),
    "root_account": done(),
    "parent_account": done(
        "accounts of projects stand below it, and stay there when projects move to another "
        "organization; `parent_account_holds: allocations` leaves them out"
    ),
    "customer_prefix": done("every account name is in lower case, as Slurm stores it"),
    "project_prefix": done(),
    "allocation_prefix": done(),
    "default_account_policy": done("another value is an error at once"),
    "default_partition": done("for new members; associations that exist stay as they are"),
    "enforce_offering_partitions": done(
        "for new members; an offering without partitions gets associations for all"
    ),
    "qos_enforcement_enabled": done(
        "what is ordered must be among what the offering lists, or else `allowed_qos`, where "
        "version 1 took any QOS of the cluster; accounts are paused and downscaled by "
        "GrpSubmitJobs=0",
        differs=True,
    ),
    "enforce_offering_qos": done(
        "absent, the offering's option `enforce_qos` decides, which version 1 never saw"
    ),
    **HOMES,
    "project_directory": done(
        "base_path must exist and belong to root; the group must exist, whatever made it, but not "
        "be one of the system's own; the quota needs no `ldap` section",
        differs=True,
    ),
    "qos_default": done(
        "an account that was paused or downscaled gets back the QOS that it had, other accounts "
        "keep theirs",
        differs=True,
    ),
    "qos_downscaled": done("must exist on the cluster"),
    "qos_paused": done("must exist on the cluster; without it GrpSubmitJobs=0 pauses accounts"),
    "qos_management": done(
        "the account keeps its QOS, which version 1 took off again in the next pass without "
        "skip_qos_swap; its QOS list is what it inherits, additional_qos and its own; values that "
        "Slurm would misread are errors"
    ),
    "execution_mode": not_supported(
        "install Slurm's commands where the agent runs and set cli", unless_other_than("cli")
    ),
    "rest_api": not_needed("it belongs to execution_mode: rest; Slurm's commands are used"),
    "usage_tres_source": renamed(
        "usage_source",
        "without it AllocTRES, in version 1 ReqTRES",
        {"requested": "reqtres", "allocated": "alloctres"},
    ),
    **COMMON,
    "periodic_limits": done(
        "budgets are computed from the policy with unit_factor and target_components, which "
        "version 1 left out, and set without events, too; limit_type GrpTRES is refused, which "
        "version 1 reported as done",
        differs=True,
    ),
    "soft_delete": done(
        "an order to restore sets the limits again, which version 1 left at zero", differs=True
    ),
}

DEFAULTS = (
    OldDefault(
        key="usage_source",
        text="usage is what jobs were allocated (AllocTRES), in version 1 what they requested "
        "(ReqTRES), which is usually less",
        line="usage_source: reqtres",
    ),
    OldDefault(
        key="fairshare_of_members",
        text="new members have a fairshare of their own, in version 1 that of their account "
        "(Share=parent)",
        line="fairshare_of_members: parent",
    ),
    OldDefault(
        key="requeued_jobs",
        text="every run of a requeued job is usage, in version 1 only the last one of a month",
        line="requeued_jobs: last_run",
    ),
    OldDefault(
        key="require_system_user",
        text="members wait until this machine knows them as users; version 1 did not ask it",
        line="require_system_user: false",
    ),
)
