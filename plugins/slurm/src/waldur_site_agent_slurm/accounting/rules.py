"""How a site counts: which of a job's seconds count for which TRES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from waldur_site_agent_slurm.settings import SlurmSettings

SuspendedTime: TypeAlias = Literal["excluded", "cpu", "counted"]
UsageSource: TypeAlias = Literal["alloctres", "reqtres"]

_FIELDS: dict[UsageSource, str] = {"alloctres": "AllocTRES", "reqtres": "ReqTRES"}


@dataclass(frozen=True, slots=True)
class Rules:
    """One way of counting."""

    suspended: SuspendedTime = "excluded"
    """``excluded``: suspended time counts for nothing; ``cpu``: for everything but cpu;
    ``counted``: for everything."""
    tres_field: str = "AllocTRES"
    resized_once: bool = True
    """Whether a resized job counts once; sreport counts the time before the resize again."""

    def leaves_out_suspension(self, tres: str) -> bool:
        """Whether the time that a job was suspended does not count for this TRES."""
        return self.suspended == "excluded" or (self.suspended == "cpu" and tres == "cpu")


SREPORT = Rules(suspended="cpu", resized_once=False)
"""As slurmdbd adds up: found by experiment."""


def rules_of(settings: SlurmSettings) -> Rules:
    """Return the way of counting that a site has chosen."""
    return Rules(settings.suspended_time, _FIELDS[settings.usage_source])
