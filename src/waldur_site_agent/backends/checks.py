"""Checks of a backend, made one after the other; a cause is reported once."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from waldur_site_agent.model.errors import SiteAgentError


class CheckStatus(enum.Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of a diagnosis: what was looked at, how it stands, and what to do about it."""

    name: str
    verdict: CheckStatus
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class DirectoryReport:
    """How a home or project directory compares with the settings."""

    path: str
    differences: tuple[str, ...] = ()
    """What is not as configured, or why it could not be found out."""
    repaired: tuple[str, ...] = ()
    """What was corrected before."""


@dataclass(frozen=True, slots=True)
class Look:
    """One check, or a few that need the same reading."""

    name: str
    make: Callable[[], Iterable[Check]]
    needs: str = ""
    """What has to answer for it, such as ``slurmdbd``; nothing in particular if empty."""


def make_checks(
    looks: Sequence[Look], unreachable: tuple[type[SiteAgentError], ...] = ()
) -> Iterator[Check]:
    """Make the checks in order; one that cannot be made has failed.

    Args:
        looks: what to look at.
        unreachable: errors that mean that what a check needs does not answer. The later checks
            that need the same are then not made, and named in the line of the first.
    """
    lost: set[str] = set()
    for number, look in enumerate(looks):
        if look.needs in lost:
            continue
        try:
            found = list(look.make())
        except SiteAgentError as error:
            detail = error.problem
            if look.needs and isinstance(error, unreachable):
                lost.add(look.needs)
                later = [each.name for each in looks[number + 1 :] if each.needs == look.needs]
                detail += f"; not checked: {', '.join(later)}" if later else ""
            found = [failed_check(look.name, error, detail)]
        yield from found


def failed_check(name: str, error: SiteAgentError, detail: str = "") -> Check:
    """The check that an error made impossible, with the error's own remedy."""
    return Check(
        name=name,
        verdict=CheckStatus.FAILED,
        detail=detail or error.problem,
        remedy=error.remedy,
    )
