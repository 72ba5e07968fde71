"""Which offerings of a file might bill the same usage twice."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from harness import Installation
from waldur_site_agent.cli.start import load
from waldur_site_agent.config import Job
from waldur_site_agent.service.session import (
    MEMBERSHIP_SYNC,
    ORDER_PROCESS,
    REPORT,
    Mode,
    Runtime,
    open_site,
)

JOBS = dict.fromkeys((job.value for job in Job), "slurm")


def siblings(
    installation: Installation,
    mode: Mode = REPORT,
    settings: dict[str, Any] | None = None,
    **other: Any,
) -> list[str]:
    """The names of the siblings of an offering in a file where there is another one."""
    second = {
        **JOBS,
        "name": "Second",
        "waldur_offering_uuid": uuid.uuid4().hex,
        "backend_settings": installation.backend_settings | (settings or {}),
        **other,
    }
    installation.write_offerings(JOBS, second)
    start = load(installation.file, jobs=[mode.job], quiet=True)
    runtime = Runtime(
        configuration=start.configuration, source=start.source, registry=start.registry
    )
    with open_site(runtime, start.offerings[0], mode, lambda: False) as site:
        return [sibling.offering.name for sibling in site.siblings]


@pytest.mark.parametrize("mode", [REPORT, ORDER_PROCESS])
def test_offerings_that_report_the_same_of_one_cluster_are_siblings(
    installation: Installation, mode: Mode
) -> None:
    elsewhere = "https://other.example.com/api/"
    for changes in ({}, {"waldur_api_url": elsewhere}, {"settings": {"allocation_prefix": "x_"}}):
        assert siblings(installation, mode, **changes) == ["Second"]


def test_nobody_else_is_a_sibling(installation: Installation) -> None:
    assert siblings(installation, MEMBERSHIP_SYNC) == []
    components = {
        "gres/gpu": {
            "measured_unit": "h",
            "unit_factor": 60,
            "accounting_type": "usage",
            "label": "GPU",
        }
    }
    for changes in (
        {"reporting_backend": ""},
        {"settings": {"cluster": "another"}},
        {"backend_components": components},
    ):
        assert siblings(installation, **changes) == []
