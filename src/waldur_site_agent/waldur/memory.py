"""How much memory this process may use: a bound of what is read has to fit the machine."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_ROOT = Path("/")


@cache
def available_memory() -> int:
    """The bytes of this machine's memory, or fewer if a service or container has a limit."""
    return min((os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits_of_cgroups()))


def limits_of_cgroups(root: Path = _ROOT) -> list[int]:
    """The memory limits of the control groups that this process is in; none on other systems."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        _, controllers, place = line.split(":", maxsplit=2)
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = top / place.lstrip("/")
        found += [_limit(each / name) for each in (group, *group.parents) if _is_in(each, top)]
    return [limit for limit in found if limit]


def _is_in(group: Path, top: Path) -> bool:
    return group == top or top in group.parents


def _limit(file: Path) -> int:
    """A limit, or 0 if there is none."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdigit() else 0
