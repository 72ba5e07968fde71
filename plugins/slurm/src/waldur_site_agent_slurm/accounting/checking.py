"""Compares the usage of a closed period with sreport, which adds up in another way."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent_slurm.accounting import asking
from waldur_site_agent_slurm.accounting.reporting import span_of
from waldur_site_agent_slurm.accounting.rules import SREPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from waldur_site_agent.model.usage import Period
    from waldur_site_agent_slurm.accounting.reading import JobReader
    from waldur_site_agent_slurm.accounting.seconds import Span
    from waldur_site_agent_slurm.accounting.tally import Amount, Sums
    from waldur_site_agent_slurm.client import SlurmClient

    Key: TypeAlias = tuple[str, str, str]
    """Account, user, TRES."""

_HOUR = 3600
_COLUMNS = 4
_SHOWN = 100
_ROLLUP = re.compile(r"rollup last ran .*\((\d+)\)")


def differences(
    client: SlurmClient,
    reader: JobReader,
    period: Period,
    components: Sequence[str],
    timeout: float,
) -> list[str]:
    """A line for everything that sacct and sreport count differently in a closed period.

    Both sides count by sreport's rules, and every account of the cluster.

    Raises:
        TemporaryError: a command failed, or slurmdbd has not added up the period yet.
    """
    span = span_of(period)
    if span.start % _HOUR or span.end % _HOUR:
        return [
            f"usage from {period.start} to {period.end} cannot be compared: sreport has whole hours"
        ]
    _require_rollup(client, span)
    (sums,) = reader.sums([span], None, components, SREPORT, by_database=True)
    ours = dict(_by_key(sums, components))
    theirs: dict[Key, int] = {}

    def read(lines: Iterator[str]) -> None:
        theirs.update(_sreport_rows(lines))

    known = client.tres_names() if any("/" in name for name in components) else ()
    types = [name for name in known if name.rpartition(":")[0] in components]
    asked = {*components, *types}
    argv = asking.used_between(_local(span.start), _local(span.end), asked, client.cluster)
    client.stream(argv, timeout, read)
    theirs = _without_types(theirs, components)
    if ours and not theirs:
        raise TemporaryError(
            f"sreport has no usage from {period.start} to {period.end}, and sacct has: slurmdbd "
            "has not added it up yet; it does so every hour (sacctmgr show stats)"
        )
    return list(_different(ours, theirs))


def _require_rollup(client: SlurmClient, span: Span) -> None:
    found = _ROLLUP.search(client.ask(asking.statistics()))
    if found is not None and int(found[1]) < span.end:
        raise TemporaryError(
            f"slurmdbd added up usage for the last time at {_local(int(found[1]))} UTC, before the "
            f"end of the period at {_local(span.end)} UTC; it does so every hour"
        )


def _by_key(sums: Sums, components: Sequence[str]) -> Iterator[tuple[Key, Amount]]:
    for (account, user), amounts in sums.amounts.items():
        if "|" in account or "|" in user:  # sreport's columns cannot be told apart then
            continue
        for component, amount in zip(components, amounts, strict=True):
            if amount:
                yield (account, user, component), amount


def _sreport_rows(lines: Iterable[str]) -> Iterator[tuple[Key, int]]:
    for line in lines:
        fields = line.split("|")
        if len(fields) != _COLUMNS:
            continue
        tres, used, user, account = fields
        if not used.isdecimal():
            raise TemporaryError(f"sreport printed a row that cannot be read: {line[:200]!a}")
        # without a user it is the sum over an account and those below it
        if user and int(used):
            yield (account.lower(), user.lower(), tres.lower()), int(used)


def _without_types(found: Mapping[Key, int], components: Sequence[str]) -> dict[Key, int]:
    """As jobs are counted: the types count together where nothing is under the name itself."""
    counted = {key: used for key, used in found.items() if key[2] in components}
    for (account, user, tres), used in found.items():
        whole = (account, user, tres.rpartition(":")[0])
        if whole[2] in components and whole not in found:
            counted[whole] = counted.get(whole, 0) + used
    return counted


def _different(ours: Mapping[Key, Amount], theirs: Mapping[Key, int]) -> Iterator[str]:
    keys = sorted(key for key in {*ours, *theirs} if ours.get(key, 0) != theirs.get(key, 0))
    for account, user, tres in keys[:_SHOWN]:
        mine, other = ours.get((account, user, tres), 0), theirs.get((account, user, tres), 0)
        yield (
            f"account {account}, user {user}, {tres}: {mine} TRES-seconds by sacct, "
            f"{other} by sreport"
        )
    if len(keys) > _SHOWN:
        yield f"and {len(keys) - _SHOWN} more differences"


def _local(moment: int) -> str:
    """A moment as sreport reads it; commands run with TZ=UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")
