"""Argument vectors, as data. Pure: nothing is started here.

Every ``key=value`` is one element, so a value can never become a second word. Every name in here
went through :mod:`waldur_site_agent_slurm.names`. Modifying without ``where`` would modify every
account of the cluster; the builders therefore refuse empty lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from waldur_site_agent.backends import Grant
from waldur_site_agent_slurm.facts import ACCOUNT_COLUMNS
from waldur_site_agent_slurm.names import TREE

Argv: TypeAlias = tuple[str, ...]

NAMES_PER_COMMAND = 500
"""Keeps an element far below the kernel's 128 KiB and one write within a few minutes."""

QOS_LIMITS = (
    "grpjobs", "grpsubmit", "maxjobspu", "maxsubmitpu", "maxjobspa", "maxsubmitpa", "grptres",
    "maxtrespu", "maxtres",
)  # fmt: skip

QOS_RULE_COLUMNS = ("name", "flags", "maxjobspu", "maxsubmitpu", "maxjobspa", "maxsubmitpa")

_READ = ("sacctmgr", "-P", "-n", "show")
_WRITE = ("sacctmgr", "-i")


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be made."""

    name: str
    parent: str
    title: str
    organization: str


def show_accounts(cluster: str | None, names: Sequence[str] | None) -> Argv:
    """Ask for accounts with their parents, users, QOS, limits and organization, in one read.

    ``wopl`` keeps what is set on an account apart from what it inherits. Without ``names`` every
    account is in the answer.
    """
    columns = "format=" + ",".join(ACCOUNT_COLUMNS)
    where = () if names is None else (f"name={_listed(names)}",)
    return (*_READ, "account", "withassoc", "wopl", columns, *where, *_only(cluster))


def show_users(names: Sequence[str], cluster: str | None) -> Argv:
    """Ask for the accounts, the default account and the AdminLevel of users."""
    columns = "format=cluster,account,user,defaultaccount,adminlevel"
    where = f"name={_listed(names)}"
    return (*_READ, "user", "withassoc", "wopl", columns, where, *_only(cluster))


def show_below(accounts: Sequence[str], cluster: str | None) -> Argv:
    """Ask for the names of these accounts and of all below them."""
    where = f"account={_listed(accounts)}"
    columns = "format=cluster,account"
    return (*_READ, "assoc", "wopl", "withsubaccounts", columns, where, *_only(cluster))


def show_enforced(
    accounts: Sequence[str], users: Sequence[str], qos: Sequence[str], cluster: str | None
) -> Argv:
    """Ask slurmctld what it enforces for accounts, users in them, and QOS.

    Without ``users``, of the associations of everybody in the accounts.
    """
    return (
        *("scontrol", *on_cluster(cluster), "show", "assoc_mgr", "flags=users,assoc,qos"),
        f"accounts={_listed(accounts)}",
        *((f"users={_listed(users)}",) if users else ()),
        *((f"qos={_listed(qos)}",) if qos else ()),
    )


def show_qos_rules() -> Argv:
    """Ask for the flags of all QOS, and their numbers of jobs for each user and account."""
    return (*_READ, "qos", "format=" + ",".join(QOS_RULE_COLUMNS))


def show_coordinators(accounts: Sequence[str]) -> Argv:
    """Ask who is a coordinator of these accounts, by them or by an account above them."""
    names = f"name={_listed(accounts)}"
    return (*_READ, "account", "withcoord", names, "format=account,coordinators")


def show_tres() -> Argv:
    """Ask for the TRES that the cluster counts."""
    return (*_READ, "tres", "format=type,name")


def show_qos() -> Argv:
    """Ask for the names of all QOS."""
    return (*_READ, "qos", "format=name")


def show_own_qos(names: Sequence[str] | None = None) -> Argv:
    """Ask for all QOS, or these, with their limits; the description is free text, comes last."""
    where = () if names is None else (f"name={_listed(names)}",)
    return (*_READ, "qos", "format=name,grptresmins,description", *where)


def add_qos(
    name: str, description: str, columns: Mapping[str, str], limits: Mapping[str, int]
) -> Argv:
    """Make one QOS with everything that is set on it, at once; QOS are of all clusters."""
    return (
        *(*_WRITE, "add", "qos", f"name={_filled(name)}", f"description={description}"),
        *(f"{key}={value}" for key, value in columns.items()),
        *((f"GrpTRESMins={_amounts(limits)}",) if limits else ()),
    )


def set_qos_limits(names: Sequence[str], limits: Mapping[str, int | None]) -> Argv:
    """Set limits of QOS; limits that are not named stay. ``None`` removes a limit."""
    where = ("where", f"name={_listed(names)}")
    return (*_WRITE, "modify", "qos", *where, "set", f"GrpTRESMins={_amounts(limits)}")


def describe_qos(name: str, description: str) -> Argv:
    """Set the description of one QOS."""
    where = ("where", f"name={_filled(name)}")
    return (*_WRITE, "modify", "qos", *where, "set", f"description={description}")


def remove_qos(name: str) -> Argv:
    """Remove one QOS; Slurm refuses while it is the default of any association."""
    return (*_WRITE, "remove", "qos", "where", f"name={_filled(name)}")


def show_qos_limits(name: str) -> Argv:
    """Ask for what one QOS lets in: numbers of jobs, and TRES."""
    columns = "format=" + ",".join(QOS_LIMITS)
    return (*_READ, "qos", f"name={_filled(name)}", columns)


def show_usage_factors() -> Argv:
    """Ask for all QOS and what each makes usage count for limits."""
    return (*_READ, "qos", "format=name,usagefactor")


def show_lineages(cluster: str | None) -> Argv:
    """Ask for the place of every association in the tree; before 23.11 there is no such column."""
    return (*_READ, "assoc", "wopl", "format=account,user,lineage", *_only(cluster))


def show_clusters() -> Argv:
    """Ask for the names of all clusters of this slurmdbd."""
    return (*_READ, "cluster", "format=cluster")


def show_admin_level(user: str) -> Argv:
    """Ask what a user may do."""
    return (*_READ, "user", f"name={user}", "format=adminlevel")


def show_configuration(cluster: str | None) -> Argv:
    """Ask slurmctld for its configuration."""
    return ("scontrol", *on_cluster(cluster), "show", "config")


def show_partitions(cluster: str | None) -> Argv:
    """Ask slurmctld for its partitions, hidden ones included."""
    return ("scontrol", *on_cluster(cluster), "-a", "-o", "show", "partition")


def show_database_configuration() -> Argv:
    """Ask slurmdbd for its configuration."""
    return ("sacctmgr", "show", "config")


def show_version() -> Argv:
    """Ask sacctmgr for its version; this does not need a database."""
    return ("sacctmgr", "-V")


def add_account(account: NewAccount, limits: Mapping[str, int], cluster: str | None) -> Argv:
    """Make one account, with its limits."""
    return (
        *(*_WRITE, "add", "account", f"name={_filled(account.name)}", *_only(cluster)),
        f"parent={_filled(account.parent)}",
        # an empty description is an error, and leaves nothing
        f"description={TREE.description(account.title) or account.name}",
        f"organization={_filled(account.organization)}",
        *((f"GrpTRESMins={_amounts(limits)}",) if limits else ()),
    )


def set_limits(
    accounts: Sequence[str], limits: Mapping[str, int | None], cluster: str | None
) -> Argv:
    """Set limits on accounts; limits that are not named stay. ``None`` removes a limit."""
    where = ("where", f"name={_listed(accounts)}", *_only(cluster))
    return (*_WRITE, "modify", "account", *where, "set", f"GrpTRESMins={_amounts(limits)}")


def move_account(account: str, parent: str, cluster: str | None) -> Argv:
    """Put one account, without accounts below it, below another one. Never several accounts.

    The parent must exist and must not be below it: 24.11 accepts any name, and a circle. With two
    accounts 22.05 may put their new parent below their old one.
    """
    where = ("where", f"name={_filled(account)}", *_only(cluster))
    return (*_WRITE, "modify", "account", *where, "set", f"parent={_filled(parent)}")


def show_shares(cluster: str | None, names: Sequence[str] | None = None) -> Argv:
    """Ask for the fairshare and MaxTRESMins of accounts, as far as they are their own."""
    columns = "format=account,fairshare,maxtresmins"
    where = () if names is None else (f"account={_listed(names)}",)
    return (*_READ, "assoc", "wopl", "user=", columns, *where, *_only(cluster))


def show_qos_job_limits() -> Argv:
    """Ask for MaxTRESMins of all QOS."""
    return (*_READ, "qos", "format=name,maxtresmins")


def show_counted(accounts: Sequence[str], cluster: str | None) -> Argv:
    """Ask slurmctld for what it counts against the limits of accounts."""
    what = (f"accounts={_listed(accounts)}", "flags=assoc")
    return ("scontrol", *on_cluster(cluster), "show", "assoc_mgr", *what)


def show_counted_of_qos(names: Sequence[str], cluster: str | None) -> Argv:
    """Ask slurmctld for what it counts against the limits of QOS."""
    what = (f"qos={_listed(names)}", "flags=qos")
    return ("scontrol", *on_cluster(cluster), "show", "assoc_mgr", *what)


def set_budget(
    accounts: Sequence[str],
    share: int | None,
    limits: Mapping[str, int | None],
    limit_type: str,
    cluster: str | None,
) -> Argv:
    """Set the fairshare of accounts, or limits of a type, or both; what is not named stays."""
    changes = (
        *(() if share is None else (f"Fairshare={share}",)),
        *((f"{limit_type}={_amounts(limits)}",) if limits else ()),
    )
    if not changes:
        raise ValueError("a command that sets a budget needs a change")
    where = ("where", f"name={_listed(accounts)}", *_only(cluster))
    return (*_WRITE, "modify", "account", *where, "set", *changes)


def set_qos_budget(names: Sequence[str], limits: Mapping[str, int | None], limit_type: str) -> Argv:
    """Set limits of a type on QOS."""
    where = ("where", f"name={_listed(names)}")
    return (*_WRITE, "modify", "qos", *where, "set", f"{limit_type}={_amounts(limits)}")


def reset_usage(entity: str, names: Sequence[str], cluster: str) -> Argv:
    """Let slurmctld count the usage of accounts (with all below them) or of QOS from zero.

    Without the cluster it remarks that it takes the local one.
    """
    where = ("where", f"name={_listed(names)}", f"cluster={_filled(cluster)}")
    return (*_WRITE, "modify", entity, *where, "set", "RawUsage=0")


def set_access(
    accounts: Sequence[str],
    qos: tuple[Iterable[str], str] | None,
    submit_limit: int | None,
    cluster: str | None,
) -> Argv:
    """Switch the QOS list and default of accounts, and how many jobs may be in their queue.

    List and default go together: Slurm refuses a default that is not in the list. An empty
    list is inherited from the account above, an empty default is cleared, and so is a limit of
    -1. What is ``None`` stays.
    """
    changes = (
        *(() if qos is None else _qos(*qos)),
        *(() if submit_limit is None else (f"GrpSubmitJobs={submit_limit}",)),
    )
    if not changes:
        raise ValueError("a command that switches access needs a change")
    where = ("where", f"name={_listed(accounts)}", *_only(cluster))
    return (*_WRITE, "modify", "account", *where, "set", *changes)


def set_member_qos(
    users: Sequence[str], account: str, qos: Iterable[str], default_qos: str, cluster: str | None
) -> Argv:
    """Switch what users have of their own in an account; empty values are inherited again."""
    where = _in_account(users, account, cluster)
    return (*_WRITE, "modify", "user", *where, "set", *_qos(qos, default_qos))


def set_member_limits(
    users: Sequence[str], account: str, limits: Mapping[str, int | None], cluster: str | None
) -> Argv:
    """Limit what each of these users may use of an account; ``None`` removes a limit."""
    where = _in_account(users, account, cluster)
    return (*_WRITE, "modify", "user", *where, "set", f"GrpTRESMins={_amounts(limits)}")


def introduce_users(
    users: Sequence[str], default_account: str, *, closed: bool, cluster: str | None
) -> Argv:
    """Make users known to the cluster, with their default account.

    ``closed`` keeps them from running anything in it: see docs/slurm.md, "The default account".
    """
    return (
        *(*_WRITE, "add", "user", f"name={_listed(users)}", f"account={_filled(default_account)}"),
        *_only(cluster),
        f"DefaultAccount={default_account}",
        *(("MaxSubmitJobs=0",) if closed else ()),
    )


def add_users(
    users: Sequence[str],
    accounts: Sequence[str],
    grant: Grant,
    cluster: str | None,
    *,
    default_account: str,
    fairshare: str,
) -> Argv:
    """Associate users with accounts. Slurm 22.05 needs time for each account: name few at once.

    Without ``default_account`` Slurm leaves the default of users who have one. Each partition of
    the grant makes an association of its own.
    """
    return (
        *(*_WRITE, "add", "user", f"name={_listed(users)}", f"account={_listed(accounts)}"),
        *_only(cluster),
        *((f"DefaultAccount={default_account}",) if default_account else ()),
        *((f"Fairshare={fairshare}",) if fairshare else ()),
        *((f"Partition={','.join(grant.partitions)}",) if grant.partitions else ()),
        *((f"QosLevel={grant.qos}", f"DefaultQOS={grant.qos}") if grant.qos else ()),
    )


def set_default_account(users: Sequence[str], account: str, cluster: str | None) -> Argv:
    """Change the default account of users that are associated with it."""
    where = ("where", f"name={_listed(users)}", *_only(cluster))
    return (*_WRITE, "modify", "user", *where, "set", f"DefaultAccount={_filled(account)}")


def remove_users(users: Sequence[str], accounts: Sequence[str], cluster: str | None) -> Argv:
    """End the associations of users with accounts. An empty list would mean everybody."""
    where = ("where", f"name={_listed(users)}", f"account={_listed(accounts)}", *_only(cluster))
    return (*_WRITE, "remove", "user", *where)


def remove_coordinators(users: Sequence[str], accounts: Sequence[str]) -> Argv:
    """Take the right of coordinators; accounts have it in all clusters alike."""
    where = ("where", f"account={_listed(accounts)}", f"names={_listed(users)}")
    return (*_WRITE, "remove", "coordinator", *where)


def remove_users_everywhere(users: Sequence[str], cluster: str | None) -> Argv:
    """Remove users with all their associations."""
    return (*_WRITE, "remove", "user", "where", f"name={_listed(users)}", *_only(cluster))


def remove_account(account: str, cluster: str | None) -> Argv:
    """Remove an account, with the associations of its users and of everything below it."""
    return (*_WRITE, "remove", "account", "where", f"name={_filled(account)}", *_only(cluster))


def list_jobs(accounts: Sequence[str], cluster: str | None) -> Argv:
    """Ask slurmctld for the jobs of accounts, in every state that is not over.

    Without ``-a`` jobs in hidden partitions are missing, and would block a removal.
    """
    return ("squeue", "-a", "-h", *on_cluster(cluster), "-A", _listed(accounts), "-o", "%A|%a|%u")


def cancel_jobs(ids: Sequence[str], cluster: str | None) -> Argv:
    """Cancel jobs by their ids. Without one scancel would refuse, so an empty list is a bug."""
    if not ids or not all(job.isdigit() for job in ids):
        raise ValueError("job ids are numbers, and at least one is needed")
    return ("scancel", *on_cluster(cluster), *ids)


def chunks(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Sorted names in portions that one command can take."""
    ordered = sorted(names)
    for start in range(0, len(ordered), NAMES_PER_COMMAND):
        yield tuple(ordered[start : start + NAMES_PER_COMMAND])


def _amounts(limits: Mapping[str, int | None]) -> str:
    if not limits:
        raise ValueError("a command that sets limits needs at least one")
    return ",".join(
        f"{name}={-1 if limits[name] is None else limits[name]}" for name in sorted(limits)
    )


def _qos(qos: Iterable[str], default_qos: str) -> tuple[str, str]:
    return f"qos={','.join(qos)}", f"DefaultQOS={default_qos or -1}"


def _in_account(users: Sequence[str], account: str, cluster: str | None) -> tuple[str, ...]:
    names = (f"name={_listed(users)}", f"account={_filled(account)}")
    return ("where", *names, *_only(cluster))


def _listed(names: Sequence[str]) -> str:
    return ",".join(_filled(name) for name in names) or _filled("")


def _filled(name: str) -> str:
    if not name:
        raise ValueError("an empty name would mean every object, or the account itself")
    return name


def _only(cluster: str | None) -> tuple[str, ...]:
    return (f"cluster={cluster}",) if cluster else ()


def on_cluster(cluster: str | None) -> tuple[str, ...]:
    """The option that names a cluster, if there is one to name."""
    return ("-M", cluster) if cluster else ()
