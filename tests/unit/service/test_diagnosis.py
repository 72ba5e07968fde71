"""The diagnosis says what is wrong, whatever it is; it never falls over itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness import SimulatedSite
from waldur_site_agent.backends import Check, CheckStatus
from waldur_site_agent.backends.plugins import Registry
from waldur_site_agent.config import Offering, Source
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.service.diagnosis import diagnose_backends, diagnose_waldur
from waldur_site_agent_slurm.backend import SlurmBackend

FINE = Check(name="commands", verdict=CheckStatus.OK, detail="are there")


class Unopenable(SlurmBackend):
    def __init__(self, *_settings_and_components: object) -> None:
        raise TemporaryError("the licence server is away")


class Defective(SlurmBackend):
    def diagnose(self) -> Iterator[Check]:
        yield FINE
        raise KeyError("surprise")


def backend_checks(offering: Offering, backend: type[SlurmBackend]) -> list[Check]:
    source = Source(Path("config.yaml"), {"offerings": [{"name": offering.name}]}, {})
    return list(diagnose_backends(offering, source, Registry({"slurm": backend})))


def test_a_token_that_cannot_be_used_is_a_failed_check(testbed: SimulatedSite) -> None:
    offering = testbed.with_(token="two words").offering()
    (check,) = diagnose_waldur(offering)
    assert (check.name, check.verdict) == ("Waldur", CheckStatus.FAILED)
    assert "waldur_api_token cannot be used" in check.detail
    assert "two words" not in check.detail


def test_a_backend_that_cannot_be_opened_is_a_failed_check(testbed: SimulatedSite) -> None:
    (check,) = backend_checks(testbed.offering(), Unopenable)
    assert (check.name, check.verdict) == ("backend slurm", CheckStatus.FAILED)
    assert check.detail == "the licence server is away; the checks that follow were skipped"


def test_a_defect_of_a_plugin_is_a_failed_check_after_those_that_were_made(
    testbed: SimulatedSite,
) -> None:
    first, second = backend_checks(testbed.offering(), Defective)
    assert first == FINE
    assert second.verdict is CheckStatus.FAILED
    assert "bug in the agent or a plugin: KeyError: 'surprise'" in second.detail
