"""Why Slurm would refuse a job, or let it wait: each rule with the value that decides. Pure.

The rules and Slurm's reasons were found by submitting jobs on 22.05 with each limit in turn;
``tests/integration/slurm/test_refusals.py`` does it again. Jobs that ask for more than is left of a
limit, or for a time, partition or QOS of their own, are not foretold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from waldur_site_agent.backends import Effect, Refusal
from waldur_site_agent_slurm.controller import (
    UNKNOWN_UIDS,
    Controller,
    ControllerQos,
    Limit,
    Limits,
)
from waldur_site_agent_slurm.facts import Account, Cluster, Member, UserRecord
from waldur_site_agent_slurm.qos import qos_names

NORMAL_QOS = "normal"
"""What a job gets that has no default QOS, where it is in the list."""
_INVALID_ACCOUNT = "Invalid account or account/partition combination specified"
_INVALID_QOS = "Invalid qos specification"
_ALWAYS_ASKED_FOR = frozenset({"cpu", "mem", "node", "billing"})
_DENIES = "denyonlimit"


@dataclass(frozen=True, slots=True, kw_only=True)
class QosRules:
    """What ``sacctmgr show qos`` has of a QOS for each user and account, and its flags."""

    flags: frozenset[str] = frozenset()
    max_jobs_per_user: int | None = None
    max_submit_per_user: int | None = None
    max_jobs_per_account: int | None = None
    max_submit_per_account: int | None = None

    @property
    def denies(self) -> bool:
        """Whether jobs are refused that would otherwise wait for one of its limits."""
        return _DENIES in self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRules:
    """Who may use a partition."""

    name: str
    is_default: bool = False
    state: str = "UP"
    allowed_accounts: frozenset[str] | None = None
    """``None``: all."""
    denied_accounts: frozenset[str] = frozenset()
    allowed_qos: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that the rules need, read before."""

    cluster: Cluster
    qos: Mapping[str, QosRules] = field(default_factory=dict)
    users: Mapping[str, UserRecord] = field(default_factory=dict)
    controller: Controller | None = None
    """``None``: slurmctld did not answer."""
    partitions: tuple[PartitionRules, ...] = ()
    lists_include_subaccounts: bool = False
    """Whether accounts in lists of partitions stand for those below them, too; so in 24.11."""
    system_users: Mapping[str, bool] = field(default_factory=dict)
    """Whether the operating system of this machine knows a user."""


def chain_of(account: str, cluster: Cluster) -> tuple[str, ...]:
    """An account and those above it, the root included."""
    chain: list[str] = []
    found = cluster.accounts.get(account)
    while found is not None and found.name not in chain:
        chain.append(found.name)
        found = cluster.accounts.get(found.parent or "")
    return tuple(chain)


def default_qos(account: str, member: Member, cluster: Cluster) -> tuple[str, str]:
    """The QOS of a job that names none, and where it comes from; empty where it gets none."""
    if member.default_qos:
        return member.default_qos, "DefaultQOS of the association"
    for name in chain_of(account, cluster):
        if chosen := cluster.accounts[name].default_qos:
            return chosen, f"DefaultQOS of account {name}"
    names = qos_list(account, member, cluster)
    if len(names) == 1:
        return names[0], "the only one in the list"
    return (NORMAL_QOS, "in the list") if NORMAL_QOS in names else ("", "")


def qos_list(account: str, member: Member, cluster: Cluster) -> tuple[str, ...]:
    """The QOS that a member may use: an own list, or that of the account."""
    return qos_names(member.qos or cluster.qos_of(account))


def of_account(account: str, reading: Reading) -> tuple[Refusal, ...]:
    """What meets everybody in an account."""
    found = reading.cluster.find(account)
    if found is None:
        rule, value = "account", f"{account} is not in the cluster"
        return (Refusal(rule=rule, value=value, answer=_INVALID_ACCOUNT),)
    if reading.controller is None:
        value = "it does not answer; no job can be submitted, and nobody knows what is used"
        return (Refusal(rule="slurmctld", value=value),)
    return (
        *_unheard(found, reading.controller),
        *_group_limits(account, reading),
        *_qos(account, Member(), reading),
        *_partitions(account, Member(), reading),
    )


def of_member(user: str, account: str, reading: Reading) -> tuple[Refusal, ...]:
    """What meets one user in an account, beside what meets everybody there."""
    found = reading.cluster.find(account)
    if found is None:
        return ()
    if user not in found.users:
        return (
            Refusal(
                rule="association",
                value=f"{user} has none with account {account}",
                answer=_INVALID_ACCOUNT,
            ),
        )
    member = found.members.get(user, Member())
    parts = [*_unknown_user(user, account, reading)]
    if member.partitions:
        names = ", ".join(sorted(member.partitions))
        parts.append(
            Refusal(
                rule="partition of the association",
                value=f"only {names}",
                jobs="in other partitions",
                answer=_INVALID_ACCOUNT,
            )
        )
    if reading.controller is not None:
        parts += _own_limits(user, account, reading.controller)
        if member.has_own_qos:
            parts += _qos(account, member, reading)
        parts += _qos_of_user(user, account, member, reading)
    return tuple(parts)


def of_user(user: str, reading: Reading) -> tuple[Refusal, ...]:
    """What meets a user wherever: no default account."""
    record = reading.users.get(user)
    accounts = sorted(reading.cluster.accounts_of(user))
    if record is None or record.default_account or not accounts:
        return ()
    return (
        Refusal(
            rule="default account",
            value=f"DefaultAccount of {user} is empty",
            jobs="without -A",
            answer=_INVALID_ACCOUNT,
            remedy=f"sacctmgr modify user where name={user} set DefaultAccount={accounts[0]}",
        ),
    )


def _unheard(account: Account, controller: Controller) -> Iterator[Refusal]:
    if controller.of_account(account.name) is None:
        yield Refusal(
            rule="account in slurmctld",
            value=f"slurmctld has not heard of {account.name}, which slurmdbd has",
            answer=_INVALID_ACCOUNT,
            remedy="scontrol reconfigure",
        )


def _unknown_user(user: str, account: str, reading: Reading) -> Iterator[Refusal]:
    """A user whom the operating system does not know: slurmctld's word counts before this one."""
    is_known_here = reading.system_users.get(user, True)
    uid = None if reading.controller is None else reading.controller.users.get(user)
    is_known_there = uid is not None and uid not in UNKNOWN_UIDS and uid >= 0
    if not is_known_here and not is_known_there:
        yield Refusal(
            rule="operating system",
            value=f"this machine knows no user {user}",
            answer=_INVALID_ACCOUNT,
            remedy=f"getent passwd {user}    # must find the user here and on slurmctld's machine",
        )
    if reading.controller is None:
        return
    if not reading.controller.of_user(user, account):
        if reading.controller.of_account(account) is not None:
            yield Refusal(
                rule="association in slurmctld",
                value=f"slurmctld has not heard that {user} is in {account}",
                answer=_INVALID_ACCOUNT,
                remedy="scontrol reconfigure",
            )
    elif uid is not None and not is_known_there:
        when = "" if is_known_here else "    # once the operating system knows the user"
        yield Refusal(
            rule="uid in slurmctld",
            value=f"{uid}: it did not know the user when it heard of the association",
            answer=_INVALID_ACCOUNT,
            remedy=f"scontrol reconfigure{when}",
        )


_MINUTES = {
    "cpu": "CPUMinutesLimit", "mem": "MemMinutes", "node": "NodeMinutes",
    "billing": "BillingMinutes", "gres": "GRESMinutes",
}  # fmt: skip
_RUN_MINUTES = {
    "cpu": "CPURunMinutesLimit", "mem": "MemRunMinutes", "node": "NodeRunMinutes",
    "billing": "BillingRunMinutes", "gres": "GRESRunMinutes",
}  # fmt: skip
_AT_ONCE = {
    "cpu": "CpuLimit", "mem": "MemLimit", "node": "NodeLimit", "billing": "Billing", "gres": "GRES",
}  # fmt: skip
_PER_JOB = {"cpu": "CpuPerJobLimit", "mem": "MemPerJob", "node": "NodePerJobLimit",
            "gres": "GRESPerJob"}  # fmt: skip
_GROUP: Mapping[str, tuple[Effect, str]] = {
    "GrpSubmitJobs": (Effect.REFUSED, "GrpSubmitJobsLimit"),
    "GrpJobs": (Effect.WAITS, "GrpJobsLimit"),
    "GrpWall": (Effect.WAITS, "GrpWallLimit"),
}
_GROUP_TRES: Mapping[str, Mapping[str, str]] = {
    "GrpTRESMins": _MINUTES,
    "GrpTRES": _AT_ONCE,
    "GrpTRESRunMins": _RUN_MINUTES,
}
_OWN: Mapping[str, tuple[Effect, str]] = {
    "MaxSubmitJobs": (Effect.REFUSED, "MaxSubmitJobLimit"),
    "MaxJobs": (Effect.WAITS, "MaxJobsLimit"),
}


def _group_limits(account: str, reading: Reading) -> Iterator[Refusal]:
    """Limits that all jobs of the account, or of one above it, share."""
    if reading.controller is None:
        return
    for name in chain_of(account, reading.cluster):
        found = reading.controller.of_account(name)
        if found is not None:
            where = ("where", f"name={name}")
            yield from _reached(found.limits, f"account {name}", "Assoc", ("account", *where))


def _own_limits(user: str, account: str, controller: Controller) -> Iterator[Refusal]:
    owner = f"{user} in account {account}"
    words = ("user", "where", f"name={user}", f"account={account}")
    for association in controller.of_user(user, account):
        limits = association.limits
        yield from _reached(limits, owner, "Assoc", words)
        for key, (effect, answer) in _OWN.items():
            if key in limits and limits[key].is_reached:
                yield _refusal(key, limits[key], owner, effect, f"Assoc{answer}", words)
        for key, limit in limits.items():
            rule, _, tres = key.partition(" ")
            if rule == "MaxTRESPJ" and limit.limit == 0:
                answer = f"AssocMax{_word(_PER_JOB, tres)}"
                yield _refusal("MaxTRES", limit, owner, Effect.WAITS, answer, words, tres=tres)


def _reached(
    limits: Limits, owner: str, prefix: str, words: Iterable[str], *, denies: bool = False
) -> Iterator[Refusal]:
    for key, limit in limits.items():
        if not limit.is_reached:
            continue
        rule, _, tres = key.partition(" ")
        if key in _GROUP:
            effect, answer = _GROUP[key]
            effect = Effect.REFUSED if denies else effect
            yield _refusal(key, limit, owner, effect, f"{prefix}{answer}", words)
        elif rule in _GROUP_TRES:
            answer = f"{prefix}Grp{_word(_GROUP_TRES[rule], tres)}"
            effect = Effect.REFUSED if denies else Effect.WAITS
            yield _refusal(rule, limit, owner, effect, answer, words, tres=tres)


def _refusal(
    rule: str,
    limit: Limit,
    owner: str,
    effect: Effect,
    answer: str,
    words: Iterable[str],
    *,
    tres: str = "",
) -> Refusal:
    prefix = f"{tres}: " if tres else ""
    raised = f"{rule}={tres}=NEW" if tres else f"{rule}=NEW"
    return Refusal(
        rule=f"{rule} of {owner}",
        value=f"{prefix}limit {amount(limit.limit)}, used {amount(limit.used)}",
        effect=effect,
        jobs="" if not tres or tres in _ALWAYS_ASKED_FOR else f"that ask for {tres}",
        answer=answer,
        # nothing at all is meant so: somebody, often the agent, has closed it
        remedy=f"sacctmgr modify {' '.join(words)} set {raised}" if limit.limit else "",
    )


def _word(words: Mapping[str, str], tres: str) -> str:
    kind = tres.partition("/")[0]
    return words.get(kind, "")


def amount(value: Decimal | None) -> str:
    """An amount as a plain number; ``none`` where there is no limit."""
    if value is None:
        return "none"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _qos(account: str, member: Member, reading: Reading) -> Iterator[Refusal]:
    """The QOS that a job gets which names none: whether it may, and whether it is used up."""
    cluster, controller = reading.cluster, reading.controller
    names = qos_list(account, member, cluster)
    chosen, source = default_qos(account, member, cluster)
    listed = ", ".join(names) or "none"
    if not chosen:
        yield Refusal(
            rule=f"QOS of account {account}",
            value=f"the list is {listed}, and none of them is a default",
            jobs="without --qos",
            answer=_INVALID_QOS,
            remedy=f"sacctmgr modify account where name={account} set DefaultQOS="
            f"{names[0] if names else NORMAL_QOS}",
        )
        return
    if names and chosen not in names:
        yield Refusal(
            rule=source,
            value=f"{chosen} is not in the list {listed}",
            jobs="without --qos",
            answer=_INVALID_QOS,
        )
    if controller is None:
        return
    rules, enforced = reading.qos.get(chosen, QosRules()), controller.qos.get(chosen)
    if enforced is not None:
        owner, words = f"QOS {chosen}", ("qos", "where", f"name={chosen}")
        yield from _reached(enforced.limits, owner, "QOS", words, denies=rules.denies)
    yield from _qos_per_account(chosen, account, rules, enforced or ControllerQos())
    yield from _zero_per_user(chosen, rules)


def _qos_per_account(
    qos: str, account: str, rules: QosRules, enforced: ControllerQos
) -> Iterator[Refusal]:
    counted = enforced.of_accounts.get(account, {})
    for key, column, maximum, effect, answer in (
        ("MaxSubmitJobsPA", "MaxSubmitJobsPerAccount", rules.max_submit_per_account,
         Effect.REFUSED, "MaxSubmitJobsPerAccount"),
        ("MaxJobsPA", "MaxJobsPerAccount", rules.max_jobs_per_account,
         Effect.WAITS, "MaxJobsPerAccount"),
    ):  # fmt: skip
        limit = _with_maximum(counted.get(key), maximum)
        if limit.is_reached:
            became = Effect.REFUSED if rules.denies else effect
            yield _qos_refusal(column, qos, limit, became, answer)


def _zero_per_user(qos: str, rules: QosRules) -> Iterator[Refusal]:
    """A limit for each user of nothing at all: a QOS for what is paused."""
    for column, maximum, effect, answer in _per_user(rules):
        if maximum == 0:
            yield _qos_refusal(column, qos, Limit(Decimal(0)), effect, answer)


def _qos_of_user(user: str, account: str, member: Member, reading: Reading) -> Iterator[Refusal]:
    """Limits for each user of the QOS, where this one has reached them."""
    chosen, _ = default_qos(account, member, reading.cluster)
    if reading.controller is None or chosen not in reading.controller.qos:
        return
    uid = reading.controller.users.get(user, -1)
    counted = reading.controller.qos[chosen].of_users.get(uid, {})
    rules = reading.qos.get(chosen, QosRules())
    keys = ("MaxSubmitJobsPU", "MaxJobsPU")
    for key, (column, maximum, effect, answer) in zip(keys, _per_user(rules), strict=True):
        limit = _with_maximum(counted.get(key), maximum)
        if maximum and limit.is_reached:
            yield _qos_refusal(column, chosen, limit, effect, answer)


def _per_user(rules: QosRules) -> tuple[tuple[str, int | None, Effect, str], ...]:
    waits = Effect.REFUSED if rules.denies else Effect.WAITS
    return (
        ("MaxSubmitJobsPerUser", rules.max_submit_per_user, Effect.REFUSED,
         "QOSMaxSubmitJobPerUserLimit"),
        ("MaxJobsPerUser", rules.max_jobs_per_user, waits, "QOSMaxJobsPerUserLimit"),
    )  # fmt: skip


def _with_maximum(counted: Limit | None, maximum: int | None) -> Limit:
    limit = None if maximum is None else Decimal(maximum)
    return Limit(limit, counted.used if counted is not None else Decimal(0))


def _qos_refusal(rule: str, qos: str, limit: Limit, effect: Effect, answer: str) -> Refusal:
    words = ("qos", "where", f"name={qos}")
    return _refusal(rule, limit, f"QOS {qos}", effect, answer, words)


def _partitions(account: str, member: Member, reading: Reading) -> Iterator[Refusal]:
    chosen, _ = default_qos(account, member, reading.cluster)
    above = chain_of(account, reading.cluster) if reading.lists_include_subaccounts else ()
    named = {account, *above}
    answer_to_account = "PartitionConfig" if reading.lists_include_subaccounts else ""
    for partition in reading.partitions:
        where = f"in partition {partition.name}" + (", the default" * partition.is_default)
        rule, effect = f"partition {partition.name}", Effect.WAITS
        if partition.state not in ("UP", "DOWN"):
            answer = "Required partition not available (inactive or drain)"
            value = f"State={partition.state}"
            yield Refusal(rule=rule, value=value, jobs=where, answer=answer)
        elif partition.state == "DOWN":
            value = "State=DOWN"
            yield Refusal(rule=rule, value=value, effect=effect, jobs=where, answer="PartitionDown")
        allowed, denied = partition.allowed_accounts, partition.denied_accounts
        if allowed is not None and named.isdisjoint(allowed):
            value = f"AllowAccounts={','.join(sorted(allowed))}"
            yield _not_permitted(rule, value, where, "account", answer_to_account)
        elif not named.isdisjoint(denied):
            has = ",".join(sorted(named & set(denied)))
            value = f"DenyAccounts has {has}"
            yield _not_permitted(rule, value, where, "account", answer_to_account)
        if partition.allowed_qos is not None and chosen not in partition.allowed_qos:
            value = f"AllowQos={','.join(sorted(partition.allowed_qos))}, a job would have {chosen}"
            yield _not_permitted(rule, value, where, "QOS")


def _not_permitted(rule: str, value: str, where: str, what: str, answer: str = "") -> Refusal:
    answer = answer or f"Job's {what} not permitted to use this partition"
    return Refusal(rule=rule, value=value, effect=Effect.WAITS, jobs=where, answer=answer)
