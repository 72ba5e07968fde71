"""Where the test services of this process live."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def place_of(service: str, first_port: int, ports: int) -> dict[str, str]:
    """The environment of a service's scripts; workers of pytest-xdist have a service each.

    Args:
        service: such as ``slurm``; its scripts read ``WSA_SLURM_DIR`` and ``WSA_SLURM_PORT``.
        first_port: where its ports begin without pytest-xdist.
        ports: how many it needs.
    """
    directory, port = f"WSA_{service.upper()}_DIR", f"WSA_{service.upper()}_PORT"
    default = str(Path(tempfile.gettempdir()) / f"waldur-site-agent-{service}")
    found = {directory: default, port: str(first_port), **os.environ}
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        found[directory] += f"-{worker}"
        place = 1 + int(worker.removeprefix("gw"))
        found[port] = str(int(found[port]) + ports * place)
    return found


def to_purge(directory: str) -> list[str]:
    """The option with which ``down.sh`` removes a directory that is not there before ``up.sh``."""
    return [] if Path(directory).exists() else ["--purge"]
