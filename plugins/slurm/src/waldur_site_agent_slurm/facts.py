"""What commands print becomes values. Pure: no process, no clock.

Everything but the names of users is compared in lower case, as Slurm stores it. Users are taken as
they are printed: with ``PreserveCaseUser`` capitals are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent_slurm import tres

ROOT = "root"
"""The account that every Slurm cluster has, above all others; also its only first user."""
ACCOUNT_COLUMNS = (
    "cluster", "account", "parentname", "user", "partition", "qos", "defaultqos", "grptresmins",
    "grpsubmit", "org",
)  # fmt: skip
"""``org`` is free text that may hold the column separator: it must stay last."""

_Row = list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """What is set on a user's own association with an account; nothing inherited.

    A user with an association for each of several partitions is one member: the QOS is that of
    the first association that has one, a limit counts where all of them have the same.
    """

    qos: str = ""
    default_qos: str = ""
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """GrpTRESMins in TRES-minutes: of everything that this user runs in this account."""
    associations: int = 1
    partitions: frozenset[str] = frozenset()
    """Those that an association is for; without any, it is good in every partition."""

    @property
    def has_own_qos(self) -> bool:
        """Whether the account's QOS does not reach this user."""
        return bool(self.qos or self.default_qos)

    def joined(self, other: Member) -> Member:
        """The same user, with the association for another partition."""
        same = {n: v for n, v in self.limits.items() if other.limits.get(n) == v}
        return Member(
            qos=self.qos or other.qos,
            default_qos=self.default_qos or other.default_qos,
            limits=same,
            associations=self.associations + other.associations,
            partitions=self.partitions | other.partitions,
        )


@dataclass(frozen=True, slots=True)
class Account:
    """One account with what is set on itself; inherited values are not repeated here."""

    name: str
    parent: str | None = None
    """``None`` for root, and for accounts without an association in this cluster."""
    organization: str = ""
    users: Set[str] = frozenset()
    """Of a reading, the keys of a dictionary: they take half the memory of a set."""
    members: Mapping[str, Member] = field(default_factory=dict)
    """Those of the users about whom there is more to say than that they are in."""
    qos: str = ""
    default_qos: str = ""
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """GrpTRESMins in TRES-minutes (memory: MiB-minutes)."""
    submit_limit: int | None = None
    """GrpSubmitJobs: how many jobs may be in the queue."""
    unreadable: tuple[str, ...] = ()
    """Limits, of the account or of its users, that are not among them: no amount could be read."""
    associated: bool = True
    """False where the account is known to slurmdbd but cannot be used in this cluster."""


@dataclass(frozen=True, slots=True)
class QosRecord:
    """A QOS with what is set on it."""

    name: str
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """GrpTRESMins in TRES-minutes (memory: MiB-minutes)."""
    unreadable: tuple[str, ...] = ()
    """Limits that are not among them: no amount could be read."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """What budgets set on an account, or on a QOS, besides GrpTRESMins."""

    fairshare: int | None = None
    """``None``: that of the account above (``parent``), or a QOS, which has none."""
    job_limits: Mapping[str, Decimal] = field(default_factory=dict)
    """MaxTRESMins in TRES-minutes (memory: MiB-minutes)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The accounts of one cluster: all of them, or those that were asked for."""

    name: str
    accounts: Mapping[str, Account]
    asked: frozenset[str] | None = None
    """The names that were asked for; of other accounts nothing is known. ``None``: of all."""
    elsewhere: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The accounts of users, of whom that was asked by themselves."""
    qos: Mapping[str, QosRecord] = field(default_factory=dict)
    """Every QOS, where accounts have QOS of their own; otherwise they are not read."""
    shares: Mapping[str, Share] = field(default_factory=dict)
    """By account, where budgets are set; otherwise they are not read."""

    def find(self, name: str) -> Account | None:
        """The account, if it can be used in this cluster."""
        account = self.accounts.get(name)
        return account if account is not None and account.associated else None

    def members_of(self, account: str) -> Set[str] | None:
        """The users of an account that can be used in this cluster; ``None``: there is none."""
        found = self.find(account)
        return None if found is None else found.users

    def covers(self, names: frozenset[str] | None) -> bool:
        """Whether these accounts are here if they exist; ``None``: whether all are."""
        return self.asked is None or (names is not None and names <= self.asked)

    def joined(self, later: Cluster) -> Cluster:
        """This reading and a later one of some accounts."""
        asked = None if self.asked is None or later.asked is None else self.asked | later.asked
        kept = {n: a for n, a in self.accounts.items() if not later.covers(frozenset({n}))}
        accounts, shares = {**kept, **later.accounts}, later.shares or self.shares
        return replace(self, accounts=accounts, asked=asked, shares=shares)

    @property
    def users(self) -> frozenset[str]:
        """Everybody who is known to have an association in this cluster."""
        here = frozenset().union(*(account.users for account in self.accounts.values()))
        return here.union(user for user, accounts in self.elsewhere.items() if accounts)

    def children(self, name: str) -> tuple[str, ...]:
        """The accounts directly below, sorted."""
        return tuple(sorted(a.name for a in self.accounts.values() if a.parent == name))

    def accounts_of(self, user: str) -> frozenset[str]:
        """The accounts that a user has an association with."""
        here = frozenset(a.name for a in self.accounts.values() if user in a.users)
        others = self.elsewhere.get(user, frozenset())
        return here.union(name for name in others if name not in self.accounts)

    def qos_of(self, name: str) -> str:
        """The QOS list of an account: its own, or the nearest one above it."""
        seen: set[str] = set()
        account = self.accounts.get(name)
        while account is not None and account.name not in seen:
            if account.qos:
                return account.qos
            seen.add(account.name)
            account = self.accounts.get(account.parent or "")
        return ""

    def with_account(self, account: Account) -> Cluster:
        """The same cluster with one account added or replaced."""
        return replace(self, accounts={**self.accounts, account.name: account})

    def without_account(self, name: str) -> Cluster:
        """The same cluster with one account less."""
        left = {key: account for key, account in self.accounts.items() if key != name}
        return replace(self, accounts=left)


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What slurmdbd knows of a user besides associations."""

    default_account: str = ""
    admin_level: str = ""
    accounts: frozenset[str] = frozenset()
    """The accounts in the cluster that the user has an association with."""

    @property
    def is_administrator(self) -> bool:
        """Whether the user may change what others have."""
        return self.admin_level.lower() not in ("", "none", "not set")


@dataclass(frozen=True, slots=True)
class Job:
    """A job that squeue still shows."""

    id: str
    account: str
    user: str


def parse_accounts(
    output: str, cluster: str | None = None, asked: frozenset[str] | None = None
) -> Cluster:
    """Read the answer to :func:`commands.show_accounts`; see :class:`AccountReading`.

    Raises:
        TemporaryError: the answer is not a complete reading of one cluster.
    """
    reading = AccountReading()
    reading.add(output.removesuffix("\n").split("\n") if output else ())
    return reading.cluster(cluster, asked)


class AccountReading:
    """The answer to :func:`commands.show_accounts` line by line, as large ones are not kept."""

    def __init__(self) -> None:
        self._drafts: dict[str, _Draft] = {}
        self._clusters: set[str] = set()

    def add(self, lines: Iterable[str]) -> None:
        """Read all lines of the answer, without their ends."""
        for row in _rows(lines):
            self._clusters.add(row[0].lower())
            name = row[1].lower()
            draft = self._drafts.get(name)
            if draft is None:
                draft = self._drafts[name] = _Draft(name)
            draft.add(row)

    def cluster(self, configured: str | None, asked: frozenset[str] | None) -> Cluster:
        """The cluster; ``asked`` are the accounts that were named, root among them.

        Raises:
            TemporaryError: the answer is not a complete reading of one cluster.
        """
        accounts = {name: self._drafts.pop(name).account() for name in tuple(self._drafts)}
        found = self._clusters - {""}
        root = accounts.get(ROOT)
        if root is None or not root.associated:
            raise TemporaryError(_incomplete(configured, len(accounts)))
        if len(found) > 1:
            raise TemporaryError(
                f"slurmdbd serves several clusters ({', '.join(sorted(found))}) and "
                "backend_settings does not say which one is meant; set 'cluster' to one of them"
            )
        return Cluster(name=found.pop(), accounts=accounts, asked=asked)


def parse_users(output: str, cluster: str) -> dict[str, UserRecord]:
    """Read the answer to :func:`commands.show_users`; one row for each association.

    Users without one, and those of other clusters, are records without accounts.
    """
    separators = 4
    found: dict[str, UserRecord] = {}
    for line in output.splitlines():
        if line.count("|") < separators:
            continue
        of_cluster, account, rest = line.split("|", 2)
        user, default, level = rest.rsplit("|", 2)  # the name may hold the column separator
        known = found.get(user) or UserRecord(admin_level=level.strip())
        if of_cluster.lower() == cluster:
            accounts = known.accounts.union({account.lower()} - {""})
            known = replace(known, default_account=default.strip().lower(), accounts=accounts)
        found[user] = known
    return found


def parse_below(output: str, cluster: str) -> frozenset[str]:
    """Read the answer to :func:`commands.show_below`."""
    rows = (line.lower().split("|") for line in output.splitlines())
    return frozenset(row[1] for row in rows if row[0] == cluster and len(row) > 1)


def parse_coordinators(output: str) -> dict[str, frozenset[str]]:
    """Read the answer to :func:`commands.show_coordinators`: account -> users."""
    rows = (line.split("|", 1) for line in output.splitlines() if "|" in line)
    return {
        account.lower(): frozenset(name.strip() for name in users.split(",") if name.strip())
        for account, users in rows
    }


def parse_jobs(output: str) -> tuple[Job, ...]:
    """Read the answer to :func:`commands.list_jobs`; lines of another form are passed over."""
    columns = 3
    # the user comes last: the name may hold the column separator
    rows = (line.strip().split("|", columns - 1) for line in output.splitlines())
    return tuple(
        Job(id=row[0], account=row[1].lower(), user=row[2])
        for row in rows
        if len(row) == columns and row[0].isdigit()
    )


def parse_tres_names(output: str) -> frozenset[str]:
    """Read the answer to :func:`commands.show_tres`: ``cpu``, ``gres/gpu``, ..."""
    rows = (line.lower().split("|") for line in output.splitlines() if "|" in line)
    return frozenset(f"{kind}/{name}" if name else kind for kind, name, *_ in rows)


def parse_stored_tres(configuration: Mapping[str, str]) -> frozenset[str]:
    """The TRES that slurmctld stores with every job; slurmdbd also lists those of the past."""
    listed = configuration.get("AccountingStorageTRES", "").lower().split(",")
    return frozenset(filter(None, map(str.strip, listed)))


def parse_qos(output: str) -> dict[str, QosRecord]:
    """Read the answer to :func:`commands.show_own_qos`.

    Raises:
        TemporaryError: it has no QOS at all, which no cluster is without.
    """
    found = parse_some_qos(output)
    if not found:
        raise TemporaryError(
            "the QOS list came back empty: this is a failed read; look at: sacctmgr show qos"
        )
    return found


def parse_some_qos(output: str) -> dict[str, QosRecord]:
    """Read the answer to :func:`commands.show_own_qos` for some names, which may not exist."""
    columns = 3
    rows = (line.split("|", columns - 1) for line in output.splitlines())
    found = {}
    for name, limits, description in (row for row in rows if len(row) == columns):
        amounts, odd = _amounts(limits)
        record = QosRecord(name.lower(), amounts, odd, description.strip().lower())
        found[record.name] = record
    return found


def parse_shares(output: str) -> dict[str, Share]:
    """Read the answer to :func:`commands.show_shares`.

    Raises:
        TemporaryError: the root account is missing, so the list is not complete.
    """
    columns = 3
    rows = (line.split("|") for line in output.splitlines())
    found = {
        name.lower(): Share(int(share) if share.isdecimal() else None, _amounts(limits)[0])
        for name, share, limits in (row for row in rows if len(row) == columns)
    }
    if ROOT not in found:
        raise TemporaryError(_incomplete(None, len(found)))
    return found


def parse_qos_job_limits(output: str) -> dict[str, Mapping[str, Decimal]]:
    """Read the answer to :func:`commands.show_qos_job_limits`."""
    rows = (line.partition("|") for line in output.splitlines())
    return {name.lower(): _amounts(limits)[0] for name, _, limits in rows}


def parse_partitions(output: str) -> frozenset[str]:
    """Read the answer to :func:`commands.show_partitions`."""
    words = (line.split(maxsplit=1)[0] for line in output.splitlines() if line.strip())
    prefix = "PartitionName="
    return frozenset(w.removeprefix(prefix).lower() for w in words if w.startswith(prefix))


def lets_no_jobs_in(output: str) -> bool:
    """Whether the limits of a QOS (:func:`commands.show_qos_limits`) have a zero among them."""
    items = (item for line in output.splitlines() for part in line.split("|") for item in
             part.split(","))  # fmt: skip
    return any(item.rpartition("=")[2].strip() == "0" for item in items)


def parse_names(output: str) -> tuple[str, ...]:
    """Read a listing with one column."""
    return tuple(line.strip().lower() for line in output.splitlines() if line.strip())


def parse_configuration(output: str) -> dict[str, str]:
    """Read ``scontrol show config`` into key -> value, as printed."""
    pairs = (line.split("=", 1) for line in output.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def values_of(key: str, output: str) -> tuple[str, ...]:
    """Read every value of a key; ``sacctmgr show config`` has slurm.conf and slurmdbd.conf."""
    pairs = (line.split("=", 1) for line in output.splitlines() if "=" in line)
    return tuple(value.strip() for name, value in pairs if name.strip() == key)


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    separators = len(ACCOUNT_COLUMNS) - 1
    row: _Row | None = None
    for line in lines:
        columns = line.split("|", separators)
        if len(columns) == len(ACCOUNT_COLUMNS):
            if row is not None:
                yield row
            row = columns
        elif row is not None:  # an organization with a line end in it
            row[-1] += f" {line}"
    if row is not None:
        yield row


class _Draft:
    """An account while its rows are read: its own, and those of its users."""

    __slots__ = ("_account", "_members", "_unreadable", "_users")

    def __init__(self, name: str) -> None:
        self._account = Account(name, associated=False)
        self._users: dict[str, None] = {}
        self._members: dict[str, Member] | None = None
        self._unreadable: tuple[str, ...] = ()

    def add(self, row: _Row) -> None:
        cluster, _, parent, user, partition, qos, default_qos, limits, submit, organization = row
        amounts, odd = _amounts(limits)
        self._unreadable += odd
        if user:
            self._add_user(user, partition, qos, default_qos, amounts)
            return
        self._account = Account(
            self._account.name,
            parent=sys.intern(parent.lower()) or None,
            organization=sys.intern(organization.lower()),
            qos=sys.intern(qos.lower()),
            default_qos=sys.intern(default_qos.lower()),
            limits=amounts,
            submit_limit=int(submit) if submit.isdecimal() else None,
            associated=self._account.associated or bool(cluster),
        )

    def _add_user(
        self,
        user: str,
        partition: str,
        qos: str,
        default_qos: str,
        amounts: Mapping[str, Decimal],
    ) -> None:
        user = sys.intern(user)  # the same people are in many accounts
        known = user in self._users
        self._users[user] = None
        if not (known or partition or qos or default_qos or amounts):
            return
        partitions = frozenset({partition.lower()} - {""})
        member = Member(qos.lower(), default_qos.lower(), amounts, partitions=partitions)
        if known or member != _PLAIN:
            members = self._members = self._members or {}
            members[user] = members.get(user, _PLAIN).joined(member) if known else member

    def account(self) -> Account:
        """The account, once all rows are read."""
        return replace(
            self._account,
            associated=self._account.associated or bool(self._users),
            users=self._users.keys(),
            members=self._members or _NO_MEMBERS,
            unreadable=self._unreadable,
        )


_PLAIN = Member()
_NO_MEMBERS: Mapping[str, Member] = {}


@lru_cache(maxsize=1024)
def _amounts(text: str) -> tuple[Mapping[str, Decimal], tuple[str, ...]]:
    """The limits that can be read, and the others as printed; many accounts have the same."""
    if not text:
        return {}, ()
    amounts: dict[str, Decimal] = {}
    unreadable: list[str] = []
    for item in text.split(","):
        try:
            amounts |= tres.parse(item)
        except ValueError:
            unreadable.append(item)
    return amounts, tuple(unreadable)


def _incomplete(cluster: str | None, count: int) -> str:
    of_cluster = f" of cluster {cluster!r}" if cluster else ""
    return (
        f"the account list{of_cluster} came back without the root account ({count} accounts): "
        "this is a failed read, not an empty cluster; check that 'sacctmgr show cluster' lists "
        "the cluster and that slurmdbd lets this user read (PrivateData=accounts)"
    )
