"""How accounts and users stand in the cluster, for explanations: read, then put into words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from waldur_site_agent.backends import (
    Detail,
    MemberStanding,
    ResourceStanding,
    Standing,
    TemporaryError,
    UserStanding,
)
from waldur_site_agent.backends.system_users import SystemUser, system_user
from waldur_site_agent_slurm import commands, refusals
from waldur_site_agent_slurm.client import SlurmClient
from waldur_site_agent_slurm.controller import Limits, parse_assoc_mgr
from waldur_site_agent_slurm.facts import Account, Cluster, Member
from waldur_site_agent_slurm.names import is_user_name
from waldur_site_agent_slurm.refusals import Reading, amount

_FEW_USERS = 50
_SUBACCOUNTS_IN_LISTS = (24, 11)
"""The first version that was seen to read the lists of partitions so; 22.05 does not."""
_SHOWN = ("GrpTRESMins", "GrpTRES", "GrpTRESRunMins", "GrpJobs", "GrpSubmitJobs", "GrpWall",
          "MaxJobs", "MaxSubmitJobs", "MaxTRESPJ")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is asked about: accounts in lower case, and users."""

    accounts: tuple[str, ...]
    users: tuple[str, ...]


def standing(
    client: SlurmClient,
    cluster: Cluster,
    subject: Subject,
    user_exists: Callable[[str], bool],
) -> Standing:
    """Read what decides about jobs, and explain it.

    Raises:
        TemporaryError: slurmdbd did not answer; without slurmctld the answer says so.
    """
    reading, remarks = _read(client, cluster, subject, user_exists)
    coordinators = client.coordinators(
        [name for name in subject.accounts if cluster.find(name) is not None]
    )
    return Standing(
        resources={
            name: _account(name, subject, reading, coordinators.get(name, frozenset()))
            for name in subject.accounts
        },
        users={user: _user(user, reading, system_user(user)) for user in subject.users},
        remarks=tuple(remarks),
    )


def _read(
    client: SlurmClient, cluster: Cluster, subject: Subject, user_exists: Callable[[str], bool]
) -> tuple[Reading, list[str]]:
    remarks: list[str] = []
    names = [user for user in subject.users if is_user_name(user)]
    users = client.users(names, cluster.name)
    reading = Reading(
        cluster=cluster,
        qos=parse_qos_rules(client.ask(commands.show_qos_rules())),
        users=users,
        system_users={user: user_exists(user) for user in subject.users},
    )
    try:
        return _with_controller(client, reading, subject.accounts, names), remarks
    except TemporaryError as error:
        remarks.append(f"slurmctld was not read: {error}")
        return reading, remarks


def _with_controller(
    client: SlurmClient, reading: Reading, accounts: Sequence[str], users: Sequence[str]
) -> Reading:
    cluster = reading.cluster
    chains = sorted({each for name in accounts for each in refusals.chain_of(name, cluster)})
    partitions = parse_partition_rules(client.ask(commands.show_partitions(client.cluster)))
    reading = replace(reading, partitions=partitions)
    if any(p.allowed_accounts is not None or p.denied_accounts for p in partitions):
        version = parse_version(client.ask(commands.show_version()))
        reading = replace(reading, lists_include_subaccounts=version >= _SUBACCOUNTS_IN_LISTS)
    if not chains:
        return reading
    few = users if len(users) <= _FEW_USERS else ()
    qos = sorted({q for name in accounts for q in _qos_in_use(name, few, cluster)})
    said = client.ask(commands.show_enforced(chains, few, qos, client.cluster))
    return replace(reading, controller=parse_assoc_mgr(said))


def parse_version(output: str) -> tuple[int, ...]:
    """Read the answer to :func:`commands.show_version`; empty if it names none."""
    found = re.search(r"\b(\d+)\.(\d+)", output)
    return tuple(int(part) for part in found.groups()) if found else ()


def _qos_in_use(name: str, users: Iterable[str], cluster: Cluster) -> Iterator[str]:
    account = cluster.find(name)
    if account is None:
        return
    members = [Member(), *(account.members.get(user, Member()) for user in users)]
    for member in members:
        yield from filter(None, refusals.default_qos(name, member, cluster)[:1])
        yield from refusals.qos_list(name, member, cluster)


def parse_qos_rules(output: str) -> dict[str, refusals.QosRules]:
    """Read the answer to :func:`commands.show_qos_rules`; odd rows are passed over."""
    found = {}
    for line in output.splitlines():
        row = [part.strip() for part in line.rsplit("|", len(commands.QOS_RULE_COLUMNS) - 1)]
        if len(row) == len(commands.QOS_RULE_COLUMNS):
            name, flags, *numbers = row
            limits = [int(number) if number.isdecimal() else None for number in numbers]
            found[name.lower()] = refusals.QosRules(
                flags=frozenset(flag.strip().lower() for flag in flags.split(",")) - {""},
                max_jobs_per_user=limits[0],
                max_submit_per_user=limits[1],
                max_jobs_per_account=limits[2],
                max_submit_per_account=limits[3],
            )
    return found


def parse_partition_rules(output: str) -> tuple[refusals.PartitionRules, ...]:
    """Read the answer to :func:`commands.show_partitions`."""
    return tuple(_partition(line) for line in output.splitlines() if "PartitionName=" in line)


def _partition(line: str) -> refusals.PartitionRules:
    values = dict(word.split("=", 1) for word in line.split() if "=" in word)

    def listed(key: str) -> frozenset[str] | None:
        text = values.get(key, "ALL")
        return None if text.upper() in ("ALL", "") else frozenset(text.lower().split(","))

    return refusals.PartitionRules(
        name=values.get("PartitionName", ""),
        is_default=values.get("Default") == "YES",
        state=values.get("State", "UP").upper(),
        allowed_accounts=listed("AllowAccounts"),
        denied_accounts=listed("DenyAccounts") or frozenset(),
        allowed_qos=listed("AllowQos"),
    )


def _account(
    name: str, subject: Subject, reading: Reading, coordinators: Iterable[str]
) -> ResourceStanding:
    account = reading.cluster.find(name)
    if account is None:
        return ResourceStanding(exists=False, refusals=refusals.of_account(name, reading))
    return ResourceStanding(
        exists=True,
        details=tuple(_account_details(account, reading, sorted(coordinators))),
        refusals=refusals.of_account(name, reading),
        members={user: _member(user, account, reading) for user in subject.users},
    )


def _account_details(
    account: Account, reading: Reading, coordinators: Sequence[str]
) -> Iterator[Detail]:
    chain = refusals.chain_of(account.name, reading.cluster)
    yield Detail("account", " > ".join(reversed(chain)))
    yield from _qos_details(account, Member(), reading)
    for name in chain:
        yield from _limit_details(name, reading)
    yield Detail("members", str(len(account.users)))
    if coordinators:
        yield Detail("coordinators", ", ".join(coordinators))


def _qos_details(account: Account, member: Member, reading: Reading) -> Iterator[Detail]:
    names = refusals.qos_list(account.name, member, reading.cluster)
    chosen, source = refusals.default_qos(account.name, member, reading.cluster)
    yield Detail("QOS", ", ".join(names) or "none")
    yield Detail("default QOS", f"{chosen} ({source})" if chosen else "none")


def _limit_details(name: str, reading: Reading) -> Iterator[Detail]:
    """The limits of one account with what is used; from slurmdbd where slurmctld is away."""
    enforced = None if reading.controller is None else reading.controller.of_account(name)
    if enforced is not None:
        yield from _limits(enforced.limits, f" of {name}")
        return
    account = reading.cluster.accounts[name]
    for tres, limit in sorted(account.limits.items()):
        yield Detail(f"GrpTRESMins of {name}", f"{tres} {amount(limit)}, used: not known")


def _limits(limits: Limits, where: str) -> Iterator[Detail]:
    for key, limit in limits.items():
        rule, _, tres = key.partition(" ")
        if rule in _SHOWN and limit.limit is not None:
            share = f" ({limit.used / limit.limit:.0%})" if limit.limit else ""
            text = f"{tres} {amount(limit.limit)}, used {amount(limit.used)}{share}".strip()
            yield Detail(f"{rule}{where}", text)


def _member(user: str, account: Account, reading: Reading) -> MemberStanding:
    member = account.members.get(user, Member())
    is_member = user in account.users
    details: list[Detail] = []
    if is_member:
        partitions = ", ".join(sorted(member.partitions))
        where = f", only in partition {partitions}" if partitions else ""
        details.append(Detail("association", f"{user} in {account.name}{where}"))
        if member.has_own_qos:
            details += _qos_details(account, member, reading)
        if reading.controller is not None:
            for association in reading.controller.of_user(user, account.name):
                details += _limits(association.limits, "")
    return MemberStanding(
        is_member=is_member,
        details=tuple(details),
        refusals=refusals.of_member(user, account.name, reading),
    )


def _user(user: str, reading: Reading, found: SystemUser) -> UserStanding:
    record = reading.users.get(user)
    details = [*found.details]
    if record is None:
        details.append(Detail("slurmdbd", "knows no such user"))
    else:
        details.append(Detail("default account", record.default_account or "none"))
        if record.is_administrator:
            details.append(Detail("AdminLevel", record.admin_level))
    accounts = ", ".join(sorted(reading.cluster.accounts_of(user)))
    details.append(Detail("accounts", accounts or "none"))
    return UserStanding(details=tuple(details), refusals=refusals.of_user(user, reading))
