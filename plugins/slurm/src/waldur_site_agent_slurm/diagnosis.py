"""Is the cluster there, and is it set up so that the agent can do its work?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from waldur_site_agent.backends import (
    Check,
    CheckStatus,
    Look,
    TemporaryError,
    locking,
    make_checks,
)
from waldur_site_agent.backends.processes import CommandTimedOutError, command_line
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent_slurm import commands, facts
from waldur_site_agent_slurm.answers import ControllerUnavailableError, DatabaseUnavailableError
from waldur_site_agent_slurm.client import SlurmClient, operating_system_user
from waldur_site_agent_slurm.qos import NO_JOBS
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.usage import queries

_HIDING = frozenset({"jobs", "usage"})
_DAYS_OF_TWO_MONTHS = 62
_KEPT = re.compile(r"(\d+) ?([hdm])")
_NAMED = 5
_COLUMNS = 3


def visibility(client: SlurmClient, privileged: Callable[[], bool]) -> Check:
    """Whether this user is shown the jobs of others; what is hidden looks like no usage.

    slurmdbd hides them in sacct, slurmctld in squeue, each by a setting of its own. ``privileged``
    is asked only where one of them does.
    """
    values = facts.values_of("PrivateData", client.ask(queries.configuration()))
    private = sorted({part.strip().lower() for value in values for part in value.split(",")})
    hidden = bool(_HIDING.intersection(private)) and not privileged()
    return Check(
        name="jobs of others",
        verdict=CheckStatus.FAILED if hidden else CheckStatus.OK,
        detail=("hidden: usage would be reported as zero" if hidden else "visible")
        + f" (PrivateData of slurmdbd and slurmctld: {','.join(private) or 'none'})",
        remedy="give the agent's user adminlevel=operator" if hidden else "",
    )


def purging(client: SlurmClient) -> Iterator[Check]:
    """Whether slurmdbd keeps what jobs used until the month they ran in is reported for good."""
    found = facts.parse_configuration(client.ask(queries.configuration()))
    short = [
        f"{name} = {found[name]}"
        for name in ("PurgeJobAfter", "PurgeSuspendAfter")
        if _kept_days(found.get(name, "")) < _DAYS_OF_TWO_MONTHS
    ]
    yield Check(
        name="records of jobs",
        verdict=CheckStatus.WARNING if short else CheckStatus.OK,
        detail=f"{', '.join(short)} in slurmdbd.conf: usage is gone before its month is closed"
        if short
        else f"kept long enough (PurgeJobAfter = {found.get('PurgeJobAfter', 'NONE')})",
        remedy="keep them for 3months or longer" if short else "",
    )


def _kept_days(value: str) -> float:
    """How long ``36 hours``, ``40 days`` or ``12 months*`` is; anything else is for ever."""
    match = _KEPT.match(value)
    if match is None:
        return math.inf
    return int(match[1]) * {"h": 1 / 24, "d": 1, "m": 31}[match[2]]


def usage_factors(client: SlurmClient) -> Iterator[Check]:
    """QOS whose usage counts for limits otherwise than by time; what is reported is time."""
    rows = client.ask(commands.show_usage_factors()).splitlines()
    factors = {name: factor for name, _, factor in (row.rpartition("|") for row in rows) if name}
    odd = {name: factor for name, factor in factors.items() if _factor(factor) != 1}
    if not odd:
        yield Check(name="UsageFactor", verdict=CheckStatus.OK, detail="1 in every QOS")
    for name, factor in sorted(odd.items()):
        yield Check(
            name=f"UsageFactor of QOS {name}",
            verdict=CheckStatus.WARNING,
            detail=f"is {factor}: its jobs count so many times for limits (GrpTRESMins), and are "
            "reported to Waldur and billed by time alone",
            remedy="if that is not intended, an administrator runs: sacctmgr modify qos "
            f"{name} set usagefactor=1",
        )


def _factor(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return math.nan


def runaway_jobs(client: SlurmClient) -> Iterator[Check]:
    """Jobs without an end that slurmctld does not know: they are in no usage until they have one.

    ``sacctmgr show runawayjobs`` has a list of them too, but then asks what to do, without end
    where nobody answers.
    """
    # the database first: a job that ends in between stays in the queue's listing for minutes
    running = _running(client.ask(queries.running_jobs(client.cluster)))
    known = facts.parse_names(client.ask(queries.known_jobs(client.cluster)))
    lost = sorted(running - set(known), key=int)
    named = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
    yield Check(
        name="runaway jobs",
        verdict=CheckStatus.WARNING if lost else CheckStatus.OK,
        detail=f"{len(lost)} jobs run by slurmdbd's records, and slurmctld does not know them "
        f"({named}): left out of usage until they have an end; they may just have ended while "
        "slurmdbd was away"
        if lost
        else "none",
        remedy="if they stay, an administrator ends them with: sacctmgr show runawayjobs"
        if lost
        else "",
    )


def _running(output: str) -> set[str]:
    jobs: set[str] = set()
    for line in output.splitlines():
        fields = line.split("|")
        if len(fields) != _COLUMNS or not fields[0].isdecimal():
            raise TemporaryError(f"sacct printed a row that cannot be read: {line[:200]!a}")
        if not fields[1].isdecimal():
            jobs.add(fields[0])
    return jobs


_WRITERS = ("operator", "administrator")
_DATABASE, _CONTROLLER = "slurmdbd", "slurmctld"


def diagnose(
    client: SlurmClient,
    settings: SlurmSettings,
    components: Mapping[str, Component],
    lock_file: Callable[[], Path],
) -> Iterator[Check]:
    """Yield one check after the other; a check that cannot be made has failed."""
    version = [Look("sacctmgr", lambda: _version(client))]
    for check in make_checks(version):
        yield check
        if check.verdict is CheckStatus.FAILED:
            return
    looks = (
        Look("cluster", lambda: _cluster(client, settings), _DATABASE),
        Look("QOS", lambda: _qos(client, settings), _DATABASE),
        Look("QOS of accounts", lambda: _account_qos(client, settings), _DATABASE),
        Look("associations", lambda: _lineages(client), _DATABASE),
        Look("components", lambda: _components(client, components), _CONTROLLER),
        Look("default_partition", lambda: _partition(client, settings), _CONTROLLER),
        Look("permission to write", lambda: _permission(client), _DATABASE),
        Look("jobs of others", lambda: [jobs_of_others(client)], _DATABASE),
        Look("records of jobs", lambda: purging(client), _DATABASE),
        Look("runaway jobs", lambda: runaway_jobs(client), _DATABASE),
        Look("UsageFactor", lambda: usage_factors(client), _DATABASE),
        Look("slurm.conf", lambda: _configuration(client, settings), _CONTROLLER),
        Look("budgets", lambda: _budgets(client, settings), _CONTROLLER),
        Look("permission to reset usage", lambda: _resetting(client, settings), _DATABASE),
        Look("lock file", lambda: _lock(lock_file)),
    )
    yield from make_checks(
        looks, (DatabaseUnavailableError, ControllerUnavailableError, CommandTimedOutError)
    )


def _version(client: SlurmClient) -> Iterator[Check]:
    said = client.ask(commands.show_version()).strip()
    yield Check(name="sacctmgr", verdict=CheckStatus.OK, detail=said)


def _cluster(client: SlurmClient, settings: SlurmSettings) -> Iterator[Check]:
    clusters = facts.parse_names(client.ask(commands.show_clusters()))
    known = ", ".join(clusters) or "none"
    if settings.cluster is not None and settings.cluster not in clusters:
        yield Check(
            name="cluster",
            verdict=CheckStatus.FAILED,
            detail=f"slurmdbd does not know cluster {settings.cluster!r}; it knows: {known}",
            remedy="set 'cluster' in backend_settings to one of them",
        )
        return
    cluster = client.accounts()
    detail = f"{cluster.name}, {len(cluster.accounts)} accounts, {len(cluster.users)} users"
    yield Check(name="cluster", verdict=CheckStatus.OK, detail=detail)
    yield from _closed_otherwise(cluster, settings)
    for key, name in _own_accounts(settings).items():
        found = cluster.find(name) is not None
        yield Check(
            name=key,
            verdict=CheckStatus.OK if found else CheckStatus.FAILED,
            detail=f"{name!r} {'exists' if found else 'does not exist'}",
            remedy="" if found else f"sacctmgr add account name={name}",
        )


def _lineages(client: SlurmClient) -> Iterator[Check]:
    """Users who are not where their account is, as 24.11 leaves them when that is moved."""
    try:
        output = client.ask(commands.show_lineages(client.cluster))
    except TemporaryError as error:
        if "Unknown field" in str(error):  # before 23.11
            return
        raise
    rows = [row.split("|") for row in output.splitlines() if row.count("|") == _COLUMNS - 1]
    places = {account: place for account, user, place in rows if not user}
    lost = sorted(
        f"{user} in {account}"
        for account, user, place in rows
        if user and account in places and not place.startswith(places[account])
    )
    shown = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
    yield Check(
        name="associations",
        verdict=CheckStatus.FAILED if lost else CheckStatus.OK,
        detail=f"{len(lost)} have another lineage than their account ({shown}): slurmctld applies "
        "no limit of the account to them, and removing the account where they were removes them"
        if lost
        else "every user is where the account is",
        remedy="an account above was moved alone; see docs/slurm.md, Projects that move"
        if lost
        else "",
    )


def _closed_otherwise(cluster: facts.Cluster, settings: SlurmSettings) -> Iterator[Check]:
    """Accounts with GrpSubmitJobs=0 at a site that pauses by QOS: Waldur does not open them."""
    closed = sorted(a.name for a in cluster.accounts.values() if a.submit_limit == NO_JOBS)
    if closed and not settings.pauses_by_submit_limit:
        shown = ", ".join(closed[:_NAMED]) + (", ..." if len(closed) > _NAMED else "")
        yield Check(
            name="GrpSubmitJobs",
            verdict=CheckStatus.WARNING,
            detail=f"0 on {len(closed)} accounts ({shown}), where it is not what pauses: they let "
            "no jobs in, whatever Waldur says",
            remedy="if that is not intended, an administrator runs: sacctmgr modify account where "
            f"name={closed[0]} set GrpSubmitJobs=-1",
        )


def _own_accounts(settings: SlurmSettings) -> dict[str, str]:
    """The accounts that the site has to make itself, by the key that names them."""
    shape = settings.shape
    needed = {shape.top_key: shape.top}
    if settings.default_account_policy == "common":
        needed["default_account"] = settings.default_account
    return needed


def _qos(client: SlurmClient, settings: SlurmSettings) -> Iterator[Check]:
    known = facts.parse_names(client.ask(commands.show_qos()))
    for key in ("qos_default", "qos_downscaled", "qos_paused"):
        wanted: str = getattr(settings, key)
        if settings.qos_management.skip_qos_swap and key == "qos_default":
            continue  # never set
        if not wanted:
            yield _no_qos(key, settings)
            continue
        found = wanted.lower() in known
        yield Check(
            name=key,
            verdict=CheckStatus.OK if found else CheckStatus.FAILED,
            detail=f"QOS {wanted!r} {'exists' if found else 'does not exist'}",
            remedy="" if found else f"an administrator makes it: sacctmgr add qos {wanted}",
        )
        if found and key == "qos_paused":
            yield _qos_that_pauses(client, wanted.lower())


def _account_qos(client: SlurmClient, settings: SlurmSettings) -> Iterator[Check]:
    """Whether QOS can be made and removed, and those exist that accounts get besides."""
    if not settings.qos_management.enabled:
        return
    user = operating_system_user()
    level, is_slurm_user = _privilege(client, user)
    may = is_slurm_user or level == "administrator"
    yield Check(
        name="permission to make QOS",
        verdict=CheckStatus.OK if may else CheckStatus.FAILED,
        detail=f"{user} may make and remove QOS"
        if may
        else f"{user} has AdminLevel {level.capitalize() or 'None'}; only administrators may",
        remedy=""
        if may
        else f"sacctmgr modify user where name={user} set adminlevel=administrator",
    )
    known = facts.parse_names(client.ask(commands.show_qos()))
    for name in settings.qos_management.additional_qos:
        found = name.lower() in known
        yield Check(
            name="additional_qos",
            verdict=CheckStatus.OK if found else CheckStatus.FAILED,
            detail=f"QOS {name!r} {'exists' if found else 'does not exist'}",
            remedy="" if found else f"an administrator makes it: sacctmgr add qos {name}",
        )


def _no_qos(key: str, settings: SlurmSettings) -> Check:
    if key == "qos_downscaled" and not settings.downscales_by_qos:
        detail = "not set: downscaled accounts are paused, by GrpSubmitJobs=0"
        return Check(name=key, verdict=CheckStatus.OK, detail=detail)
    if key == "qos_paused" and settings.pauses_by_submit_limit:
        detail = "not set: accounts are paused by GrpSubmitJobs=0"
        return Check(name=key, verdict=CheckStatus.OK, detail=detail)
    return Check(
        name=key,
        verdict=CheckStatus.WARNING,
        detail="not set",
        remedy=f"set {key} if resources are to be downscaled",
    )


def _qos_that_pauses(client: SlurmClient, name: str) -> Check:
    pauses = facts.lets_no_jobs_in(client.ask(commands.show_qos_limits(name)))
    return Check(
        name=f"limits of QOS {name}",
        verdict=CheckStatus.OK if pauses else CheckStatus.WARNING,
        detail="lets no jobs in"
        if pauses
        else "none of its limits is 0: whoever is paused may go on, unless a partition refuses it",
        remedy=""
        if pauses
        else "an administrator runs: sacctmgr modify qos "
        f"{name} set MaxSubmitJobsPerUser=0; or take qos_paused out of backend_settings, then "
        "accounts are paused by GrpSubmitJobs=0",
    )


def _partition(client: SlurmClient, settings: SlurmSettings) -> Iterator[Check]:
    wanted = settings.default_partition.lower()
    if not wanted:
        return
    known = facts.parse_partitions(client.ask(commands.show_partitions(client.cluster)))
    found = wanted in known
    yield Check(
        name="default_partition",
        verdict=CheckStatus.OK if found else CheckStatus.FAILED,
        detail=f"partition {wanted!r} exists"
        if found
        else f"there is no partition {wanted!r}, so new members could not submit jobs; "
        f"there are {', '.join(sorted(known)) or 'none'}",
        remedy="" if found else "set default_partition to one of them",
    )


def _components(client: SlurmClient, components: Mapping[str, Component]) -> Iterator[Check]:
    stored = facts.parse_stored_tres(_controllers_configuration(client))
    if not stored:
        raise TemporaryError(
            "slurmctld does not say which TRES it stores (AccountingStorageTRES); "
            f"look at: {command_line(commands.show_configuration(client.cluster))}"
        )
    for component in components:
        yield _component(component, stored)


def _component(component: str, stored: frozenset[str]) -> Check:
    name = component.lower()
    types = sorted(each for each in stored if each.startswith(f"{name}:"))
    remedy = f"add {component} to AccountingStorageTRES in slurm.conf"
    if name in stored:
        verdict, detail, remedy = CheckStatus.OK, "stored by slurmctld", ""
    elif types:
        verdict = CheckStatus.WARNING
        detail = (
            f"slurmctld stores it by type only: usage is the sum of {', '.join(types)}, "
            f"and limits of {component} do not hold"
        )
    else:
        verdict = CheckStatus.FAILED
        detail = (
            "slurmctld does not store it (AccountingStorageTRES), so its usage is zero; "
            f"it stores {', '.join(sorted(stored))}"
        )
        remedy += ", or rename the component"
    return Check(name=f"TRES {component}", verdict=verdict, detail=detail, remedy=remedy)


def _permission(client: SlurmClient) -> Iterator[Check]:
    user = operating_system_user()
    level, is_slurm_user = _privilege(client, user)
    may = is_slurm_user or level in _WRITERS
    if is_slurm_user:
        detail = f"{user} is root or SlurmUser, who need no AdminLevel"
    elif level:
        detail = f"{user} has AdminLevel {level.capitalize()}"
    else:
        detail = f"slurmdbd does not know the user {user}"
    yield Check(
        name="permission to write",
        verdict=CheckStatus.OK if may else CheckStatus.FAILED,
        detail=detail,
        remedy=""
        if may
        else f"an administrator runs: sacctmgr modify user where name={user} set "
        "adminlevel=operator (first 'sacctmgr add user' if Slurm does not know it)",
    )


def _privilege(client: SlurmClient, user: str) -> tuple[str, bool]:
    """The level of a user, and whether it may do everything whatever its level."""
    level = client.ask(commands.show_admin_level(user)).strip().lower()
    # root and SlurmUser may; only slurmctld can say who SlurmUser is
    return level, user == "root" or (level not in _WRITERS and user == _slurm_user(client))


def jobs_of_others(client: SlurmClient) -> Check:
    """Whether usage has the jobs of everybody; mostly one process."""

    def privileged() -> bool:
        level, is_slurm_user = _privilege(client, operating_system_user())
        return is_slurm_user or level in _WRITERS

    return visibility(client, privileged)


def _slurm_user(client: SlurmClient) -> str:
    try:
        settings = _controllers_configuration(client)
    except TemporaryError:
        return ""
    return settings.get("SlurmUser", "").partition("(")[0]


def _controllers_configuration(client: SlurmClient) -> dict[str, str]:
    return facts.parse_configuration(client.ask(commands.show_configuration(client.cluster)))


def _configuration(client: SlurmClient, settings: SlurmSettings) -> Iterator[Check]:
    found = _controllers_configuration(client)
    enforced = found.get("AccountingStorageEnforce", "")
    yield _enforcement(enforced)
    yield _pausing(enforced, settings)
    if not settings.periodic_limits.enabled:
        yield from _usage_decay(found)


def _enforcement(value: str) -> Check:
    parts = {part.strip().lower() for part in value.split(",")}
    missing = sorted({"associations", "limits"} - parts)
    if not missing:
        return Check(name="AccountingStorageEnforce", verdict=CheckStatus.OK, detail=value)
    return Check(
        name="AccountingStorageEnforce",
        verdict=CheckStatus.WARNING,
        detail=f"is {value!r}: without {' and '.join(missing)} Slurm lets "
        + ("anybody use any account" if "associations" in missing else "accounts exceed limits"),
        remedy="set AccountingStorageEnforce=associations,limits,qos,safe in slurm.conf",
    )


def _pausing(enforced: str, settings: SlurmSettings) -> Check:
    """Whether slurmctld holds jobs to what pauses an account."""
    parts = {part.strip().lower() for part in enforced.split(",")}
    lever, needed = "GrpSubmitJobs=0", {"limits", "safe", "all"}
    if settings.pauses_by_qos:
        lever, needed = f"QOS {settings.qos_paused}", {"qos", "all"}
    works = bool(parts & needed)
    word = min(needed - {"safe", "all"})
    return Check(
        name="pausing",
        verdict=CheckStatus.OK if works else CheckStatus.FAILED,
        detail=f"by {lever}"
        if works
        else f"by {lever}, which slurmctld does not enforce: paused resources can be used",
        remedy=""
        if works
        else f"add {word} to AccountingStorageEnforce in slurm.conf and restart slurmctld",
    )


def _usage_decay(found: Mapping[str, str]) -> Iterator[Check]:
    half_life = found.get("PriorityDecayHalfLife", "00:00:00")
    period = found.get("PriorityUsageResetPeriod", "NONE")
    decays = half_life.strip("0:-") != ""
    detail = f"PriorityDecayHalfLife={half_life}, PriorityUsageResetPeriod={period}"
    if not decays and period.upper() == "MONTHLY":
        yield Check(name="usage that counts for limits", verdict=CheckStatus.OK, detail=detail)
        return
    yield Check(
        name="usage that counts for limits",
        verdict=CheckStatus.WARNING,
        detail=f"{detail}: limits are held against usage that "
        + ("decays" if decays else f"is reset {period.lower()}")
        + ", while Waldur is told of what was used in the calendar month",
        remedy="PriorityDecayHalfLife=0 and PriorityUsageResetPeriod=MONTHLY make the two agree",
    )


def _budgets(client: SlurmClient, settings: SlurmSettings) -> Iterator[Check]:
    """Whether Slurm counts usage in a way that budgets of a period can rest on."""
    if not settings.periodic_limits.enabled:
        return
    found = _controllers_configuration(client)
    counts = "multifactor" in found.get("PriorityType", "priority/multifactor")
    yield Check(
        name="PriorityType",
        verdict=CheckStatus.OK if counts else CheckStatus.FAILED,
        detail=found.get("PriorityType", "")
        if counts
        else f"is {found['PriorityType']}: no usage is counted, so budgets do not hold",
        remedy="" if counts else "set PriorityType=priority/multifactor in slurm.conf",
    )
    weighs = found.get("PriorityWeightFairShare", "1") != "0"
    yield Check(
        name="fairshare",
        verdict=CheckStatus.OK if weighs else CheckStatus.WARNING,
        detail="counts for priorities"
        if weighs
        else "has no weight (PriorityWeightFairshare): the shares of budgets have no effect",
        remedy="" if weighs else "set PriorityWeightFairshare in slurm.conf",
    )
    yield _budget_decay(found.get("PriorityDecayHalfLife", "00:00:00"), settings)
    yield _own_resets(found.get("PriorityUsageResetPeriod", "NONE"))


def _budget_decay(half_life: str, settings: SlurmSettings) -> Check:
    flags = {flag.strip().lower() for flag in settings.qos_management.flags.split(",")}
    on_qos = settings.limits_are_on_qos
    lasts = half_life.strip("0:-") == "" or (on_qos and "nodecay" in flags)
    kept = "no decay" if half_life.strip("0:-") == "" else "QOS of accounts have NoDecay"
    return Check(
        name="decay of usage",
        verdict=CheckStatus.OK if lasts else CheckStatus.WARNING,
        detail=kept
        if lasts
        else f"PriorityDecayHalfLife={half_life}: usage is forgotten, and can be used again within "
        "the period",
        remedy=""
        if lasts
        else "add NoDecay to qos_management.flags, and to the QOS that exist"
        if on_qos
        else "set PriorityDecayHalfLife=0 in slurm.conf, or set limits on a QOS with NoDecay "
        "(qos_management with apply_limits_to_qos)",
    )


def _own_resets(period: str) -> Check:
    is_off = period.upper() == "NONE"
    return Check(
        name="resets by Slurm itself",
        verdict=CheckStatus.OK if is_off else CheckStatus.WARNING,
        detail="none"
        if is_off
        else f"PriorityUsageResetPeriod={period}: usage is reset at times that need not be those "
        "of the periodic policy",
        remedy=""
        if is_off
        else "set PriorityUsageResetPeriod=NONE in slurm.conf where the policy in Waldur resets "
        "usage; keep it where the policy does not, and its period is the same",
    )


def _resetting(client: SlurmClient, settings: SlurmSettings) -> Iterator[Check]:
    if not settings.periodic_limits.enabled:
        return
    user = operating_system_user()
    level, is_slurm_user = _privilege(client, user)
    may = is_slurm_user or level == "administrator"
    yield Check(
        name="permission to reset usage",
        verdict=CheckStatus.OK if may else CheckStatus.WARNING,
        detail=f"{user} may reset RawUsage"
        if may
        else f"{user} has AdminLevel {level.capitalize() or 'None'}; only administrators may reset "
        "RawUsage, which a periodic policy asks for at the beginning of each period",
        remedy=""
        if may
        else f"sacctmgr modify user where name={user} set adminlevel=administrator, or turn "
        "raw_usage_reset off in the policy",
    )


def _lock(lock_file: Callable[[], Path]) -> Iterator[Check]:
    path = lock_file()
    locking.probe_lock(path)
    yield Check(name="lock file", verdict=CheckStatus.OK, detail=str(path))
