"""Limits as sacctmgr reads and prints them."""

from __future__ import annotations

from collections.abc import Mapping

from waldur_site_agent.backends.simulation import Answer, RefusedError
from waldur_site_agent_slurm import tres
from waldur_site_agent_slurm.simulator.request import unknown_option
from waldur_site_agent_slurm.simulator.state import SimState

CLEARED = -1
_FIRST_THAT_CLEARS = 2**64 - 2
_STEP = 1024
_SUFFIXES = "KMGTP"


def read_limits(state: SimState, text: str, *, adding: bool = False) -> dict[str, int]:
    """Read a TRES list; ``CLEARED`` stands for a limit to be removed.

    Raises:
        RefusedError: a TRES that the cluster does not count, or no list at all.
    """
    if not text and adding:
        return {}
    found: dict[str, int] = {}
    for item in text.split(","):
        name, separator, amount = item.partition("=")
        if not separator or name.lower() not in state.tres:
            said = f"sacctmgr: error: slurmdb_format_tres_str: no TRES known by type {name}\n"
            refusal = unknown_option(f"GrpTRESMins={text}")
            complaint = said if separator else ""
            raise RefusedError(Answer(1, "", complaint + refusal.stderr))
        found[name.lower()] = _amount(amount)
    return {n: v for n, v in found.items() if v != CLEARED} if adding else found


def merge(limits: dict[str, int], changes: Mapping[str, int]) -> None:
    """Change what is named and leave the rest, as Slurm does."""
    for name, amount in changes.items():
        if amount == CLEARED:
            limits.pop(name, None)
        else:
            limits[name] = amount


def printed(limits: Mapping[str, int]) -> str:
    """A TRES list, sorted, memory with its suffix."""
    return ",".join(
        f"{name}={'-1' if limits[name] == CLEARED else tres.printed(name, limits[name])}"
        for name in sorted(limits)
    )


def _amount(text: str) -> int:
    factor = 1
    if text[-1:].upper() in _SUFFIXES and len(text) > 1:
        factor = _STEP ** (_SUFFIXES.index(text[-1].upper()) + 1)
        text = text[:-1]
    if not text.lstrip("-").isdigit():
        said = f"sacctmgr: error: Invalid value for GrpTRESMins: {text}\n"
        raise RefusedError(Answer(1, "", said))
    number = int(text) * factor
    return CLEARED if number < 0 or number >= _FIRST_THAT_CLEARS else number
