from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import Installation, SimulatedSite


@pytest.fixture
def real_site(real_slurm: Any, prefix: str, testbed: SimulatedSite, tmp_path: Path) -> Installation:
    """The agent's own commands between a sandbox and a real cluster."""
    settings = {
        "customer_prefix": f"{prefix}c_",
        "project_prefix": f"{prefix}p_",
        "allocation_prefix": f"{prefix}a_",
        "qos_default": "normal",
        "retry_seconds": 2,
    }
    installation = Installation(
        testbed, tmp_path, settings, {"SLURM_CONF": str(real_slurm.slurm_conf)}
    )
    installation.write()
    return installation
