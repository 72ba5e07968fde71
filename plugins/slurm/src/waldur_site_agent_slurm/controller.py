"""What slurmctld enforces: its own copy of associations and QOS, with limits and what is used.

Read from ``scontrol show assoc_mgr``, which everybody may ask unless PrivateData says otherwise.
Pure: no process, no clock. The format was seen on Slurm 22.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

UNKNOWN_UIDS = frozenset({2**32 - 2, 2**32 - 1})
"""What slurmctld has for a user whom the operating system did not know when it looked."""

_ASSOCIATION = re.compile(
    r"ClusterName=(?P<cluster>.*?) Account=(?P<account>.*?) UserName=(?P<user>.*?) "
    r"Partition=(?P<partition>\S*) Priority="
)
_USER = re.compile(r"UserName=(?P<user>.*?) DefAccount=(?P<account>.*?) DefWckey=")
_QOS = re.compile(r"QOS=(?P<name>.*)\(\d+\)$")
_WITH_NUMBER = re.compile(r"(?P<name>.*)\((?P<number>\d+)\)$")
_PAIR = re.compile(r"(\w+)=(\S*)")
_AMOUNT = re.compile(r"(?P<limit>N|[0-9.]+)(\((?P<used>[0-9.]+)\))?$")
_SECTIONS = ("User Records", "Association Records", "QOS Records")
_PER_USER, _PER_ACCOUNT = "User Limits", "Account Limits"


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and what counts against it, as slurmctld adds up (with decay, if the site has it)."""

    limit: Decimal | None
    """``None``: there is none; what is used is counted all the same."""
    used: Decimal = Decimal(0)

    @property
    def is_reached(self) -> bool:
        """Whether nothing more is let in."""
        return self.limit is not None and self.used >= self.limit


Limits = Mapping[str, Limit]
"""By name, ``GrpJobs``; of limits for each TRES also by that, ``GrpTRESMins cpu``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One association as slurmctld has it; that of an account has no user."""

    account: str
    user: str = ""
    uid: int | None = None
    partition: str = ""
    limits: Limits = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerQos:
    """One QOS as slurmctld has it."""

    limits: Limits = field(default_factory=dict)
    of_users: Mapping[int, Limits] = field(default_factory=dict)
    """By uid, of those who had a job since slurmctld started."""
    of_accounts: Mapping[str, Limits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Everything that slurmctld said."""

    users: Mapping[str, int] = field(default_factory=dict)
    """The uid of each user; see :data:`UNKNOWN_UIDS`."""
    associations: tuple[Association, ...] = ()
    qos: Mapping[str, ControllerQos] = field(default_factory=dict)

    def of_account(self, account: str) -> Association | None:
        """The association of an account itself."""
        return next((a for a in self.associations if a.account == account and not a.user), None)

    def of_user(self, user: str, account: str) -> tuple[Association, ...]:
        """A user's associations with an account: one, or one for each partition."""
        return tuple(a for a in self.associations if a.account == account and a.user == user)


def parse_assoc_mgr(output: str) -> Controller:
    """Read the answer to :func:`commands.show_enforced`; what it does not know is passed over."""
    users: dict[str, int] = {}
    associations: list[Association] = []
    qos: dict[str, ControllerQos] = {}
    for head, body in _records(output):
        if match := _ASSOCIATION.match(head):
            associations.append(_association(match, body))
        elif match := _QOS.match(head):
            qos[match["name"].lower()] = _qos(body)
        elif match := _USER.match(head):
            name, uid = _name_and_number(match["user"])
            users[name] = -1 if uid is None else uid
    return Controller(users=users, associations=tuple(associations), qos=qos)


def _records(output: str) -> Iterator[tuple[str, list[str]]]:
    """The records: a line that begins at the margin, and the indented lines below it."""
    head, body = "", list[str]()
    for line in output.splitlines():
        if line[:1].isspace():
            body.append(line)
        elif line.strip():
            if head:
                yield head, body
            head, body = line.strip(), []
    if head:
        yield head, body


def _association(match: re.Match[str], body: Iterable[str]) -> Association:
    user, uid = _name_and_number(match["user"])
    return Association(
        account=match["account"].lower(),
        user=user,
        uid=uid,
        partition=match["partition"].lower(),
        limits=_limits(body),
    )


def _qos(body: Iterable[str]) -> ControllerQos:
    """The limits of a QOS; those of single users and accounts come below a heading each."""
    parts: dict[str, dict[str, list[str]]] = {"": {"": []}, _PER_USER: {}, _PER_ACCOUNT: {}}
    part, owner = "", ""
    for line in body:
        text = line.strip()
        if text in (_PER_USER, _PER_ACCOUNT):
            part, owner = text, ""
        elif part and "=" not in text:
            owner = text
        else:
            parts[part].setdefault(owner, []).append(line)
    return ControllerQos(
        limits=_limits(parts[""][""]),
        of_users={
            int(uid): _limits(lines) for uid, lines in parts[_PER_USER].items() if uid.isdecimal()
        },
        of_accounts={name.lower(): _limits(lines) for name, lines in parts[_PER_ACCOUNT].items()},
    )


def _limits(lines: Iterable[str]) -> dict[str, Limit]:
    found: dict[str, Limit] = {}
    for line in lines:
        for key, value in _PAIR.findall(line):
            for part in value.split(","):
                tres, is_tres, amount = part.rpartition("=")
                limit = _limit(amount)
                if limit is not None:
                    found[f"{key} {tres.lower()}" if is_tres else key] = limit
    return found


def _limit(text: str) -> Limit | None:
    match = _AMOUNT.match(text)
    if match is None:
        return None
    try:
        limit = None if match["limit"] == "N" else Decimal(match["limit"])
        return Limit(limit, Decimal(match["used"] or 0))
    except InvalidOperation:
        return None


def _name_and_number(text: str) -> tuple[str, int | None]:
    match = _WITH_NUMBER.match(text)
    return (match["name"], int(match["number"])) if match else (text, None)
