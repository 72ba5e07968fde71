"""Stands for ``waldur_site_agent.backend``: constants and the logger."""

from __future__ import annotations

import enum
from typing import Any

import structlog

from waldur_site_agent_v1_plugins.swallowed import OverheardLogger

ACCOUNT_NAME_REGEX = "a-zA-Z0-9-_"
UNKNOWN_BACKEND_TYPE = "unknown"
DEFAULT_RESOURCE_KEY_COUNT = 2
ALL_MODELS = "*"
UNASSIGNED_USAGE_SUFFIX = "-unassigned"


class BackendType(enum.Enum):
    """The kinds of backend that version 1 had names for."""

    SLURM = "slurm"
    MOAB = "moab"
    MUP = "mup"
    CEPH_S3 = "ceph_s3"
    CROIT_S3 = "croit_s3"
    DIGITALOCEAN = "digitalocean"
    AZURE = "azure"
    CUSTOM = "custom"
    UNKNOWN = UNKNOWN_BACKEND_TYPE


_NAME = "waldur_site_agent.backend"
logger: Any = OverheardLogger(structlog.stdlib.get_logger(_NAME, library=_NAME))
"""Plugins write names into its texts, which therefore leave the site only where that is allowed."""


def configure_logger(*_args: object, **_options: object) -> None:
    """The agent has configured its logs already."""
