"""How resources and users stand in a backend: what it has of them, and what it would refuse."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Detail:
    """One line about something: a name from the field, and its value as text."""

    name: str
    value: str


class Effect(enum.Enum):
    """What happens to a job."""

    REFUSED = "refused"
    """It cannot be submitted."""
    WAITS = "waits"
    """It is accepted, and does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason why work would be refused or would wait, with the value that decides."""

    rule: str
    """The rule, and where it is set: ``GrpTRESMins of account p_climate``."""
    value: str
    """The value that decides: ``cpu: limit 600, used 612``."""
    effect: Effect = Effect.REFUSED
    jobs: str = ""
    """Which jobs are meant, such as ``that ask for gres/gpu``; empty for all of them."""
    answer: str = ""
    """What the backend itself gives as the reason."""
    remedy: str = ""
    """A command that an administrator can paste, or what else helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStanding:
    """How one user stands in one resource."""

    is_member: bool | None = None
    """``None`` where the backend cannot tell."""
    details: tuple[Detail, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Those of this user alone, beside those of the resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStanding:
    """What the backend has of one resource."""

    exists: bool
    details: tuple[Detail, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Those that meet everybody."""
    members: Mapping[str, MemberStanding] = field(default_factory=dict)
    """By user: those asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStanding:
    """What the backend and the operating system say of a user, whatever the resource."""

    details: tuple[Detail, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a backend says of the resources and users that it was asked about."""

    resources: Mapping[str, ResourceStanding] = field(default_factory=dict)
    users: Mapping[str, UserStanding] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    """What could not be read, so that something may be missing above."""
