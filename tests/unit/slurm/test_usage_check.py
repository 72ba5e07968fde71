"""The comparison of a closed month with sreport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from unit.slurm.simulated_jobs import at, backend_on, between, simulated
from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent_slurm.simulator import SimulatedSlurm

OCTOBER = BillingMonth(2026, 10).period(UTC)
TRES = ("cpu", "mem")


@pytest.fixture
def slurm() -> SimulatedSlurm:
    """Jobs of all kinds: across the border, suspended, resized, of users with odd names."""
    slurm = simulated()
    tres = {"cpu": 2, "mem": 100}
    slurm.run_job("ada", "climate", tres, at("09-30 23:00"), at("10-01 01:00"))
    slurm.run_job(
        *("ada", "climate", tres, at("10-31 23:00"), at("11-01 01:00")),
        suspended=[(at("10-31 23:10"), at("11-01 00:10"))],
    )
    start, resized = at("10-05 00:00"), at("10-05 01:00")
    job = slurm.run_job("bob", "ocean", {"cpu": 8}, start, resized, state="RESIZING")
    slurm.run_job("bob", "ocean", tres, start, at("10-05 03:00"), submit=resized, job=job)
    slurm.run_job("a|b", "ocean", tres, start, resized)
    return slurm


def test_gpus_that_are_recorded_by_type_only_agree(slurm: SimulatedSlurm) -> None:
    with slurm.change() as state:
        state.tres += ["gres/gpu:a100", "gres/gpu:v100"]
    gpus = {"gres/gpu:a100": 1, "gres/gpu:v100": 3}
    slurm.run_job("ada", "climate", gpus, at("10-06 00:00"), at("10-06 01:00"))
    names = ("gres/gpu", "gres/gpu:v100")
    assert list(backend_on(slurm, names, usage_check=True).verify_usage(OCTOBER)) == []


class Changed:
    """A cluster whose sreport says something else."""

    def __init__(self, slurm: SimulatedSlurm, change: Callable[[str], str]) -> None:
        self._slurm, self._change = slurm, change

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self._slurm.runner().run(argv, timeout)
        if argv[0] != "sreport":
            return result
        return CommandResult(result.argv, 0, self._change(result.stdout), "")


def test_a_month_that_both_count_alike_has_no_differences(slurm: SimulatedSlurm) -> None:
    backend = backend_on(slurm, TRES, usage_check=True)
    assert list(backend.verify_usage(OCTOBER)) == []
    assert set(slurm.commands_run) == {"sacctmgr read", "sacct", "sreport"}


def test_a_difference_names_account_user_tres_and_both_values(slurm: SimulatedSlurm) -> None:
    changed = Changed(
        slurm, lambda said: said.replace("cpu|8400|ada|climate", "cpu|8999|ada|climate")
    )
    (line,) = backend_on(changed, TRES, usage_check=True).verify_usage(OCTOBER)
    assert line == ("account climate, user ada, cpu: 8400 TRES-seconds by sacct, 8999 by sreport")


def test_what_only_one_of_them_has_is_a_difference(slurm: SimulatedSlurm) -> None:
    changed = Changed(slurm, lambda said: said.replace("|bob|", "|eve|"))
    lines = list(backend_on(changed, TRES, usage_check=True).verify_usage(OCTOBER))
    assert len(lines) == 4
    assert any("user bob" in line and "0 by sreport" in line for line in lines)
    assert any("user eve" in line and "0 TRES-seconds by sacct" in line for line in lines)


def test_a_flood_of_differences_is_cut_short(slurm: SimulatedSlurm) -> None:
    strangers = "".join(f"cpu|5|user{number}|climate\n" for number in range(150))
    changed = Changed(slurm, lambda said: said + strangers)
    lines = list(backend_on(changed, TRES, usage_check=True).verify_usage(OCTOBER))
    assert lines[-1] == "and 50 more differences"
    assert len(lines) == 101


def test_a_month_that_slurmdbd_has_not_added_up_is_compared_later(slurm: SimulatedSlurm) -> None:
    backend = backend_on(slurm, TRES, usage_check=True)
    with slurm.change() as state:
        state.added_up_until = int(OCTOBER.end.timestamp()) - 60
    with pytest.raises(TemporaryError, match="2026-10-31T23:59:00 UTC"):
        backend.verify_usage(OCTOBER)
    empty = Changed(slurm, lambda _said: "")
    with slurm.change() as state:
        state.added_up_until = None
    with pytest.raises(TemporaryError, match="has not added it up"):
        backend_on(empty, TRES, usage_check=True).verify_usage(OCTOBER)


def test_an_answer_of_sreport_that_cannot_be_read_is_no_difference(slurm: SimulatedSlurm) -> None:
    odd = Changed(slurm, lambda _said: "cpu|many|ada|climate\n")
    with pytest.raises(TemporaryError, match="many"):
        backend_on(odd, TRES, usage_check=True).verify_usage(OCTOBER)


def test_months_that_begin_within_an_hour_cannot_be_compared(slurm: SimulatedSlurm) -> None:
    backend = backend_on(slurm, TRES, usage_check=True)
    october = BillingMonth(2026, 10).period(ZoneInfo("Asia/Kolkata"))
    (line,) = backend.verify_usage(october)
    assert "whole hours" in line
    assert slurm.commands_run == {}


def test_nothing_is_compared_unless_the_site_asks(slurm: SimulatedSlurm) -> None:
    assert list(backend_on(slurm, TRES).verify_usage(OCTOBER)) == []
    assert slurm.commands_run == {}


def test_an_idle_month_agrees(slurm: SimulatedSlurm) -> None:
    backend = backend_on(slurm, TRES, usage_check=True)
    assert list(backend.verify_usage(between("02-01 00:00", "03-01 00:00"))) == []


def test_a_time_of_the_past_stays_as_it_was(slurm: SimulatedSlurm) -> None:
    """The clock of the cluster has no part in a closed month."""
    backend = backend_on(slurm, TRES, usage_check=True)
    with slurm.change() as state:
        state.now = int(datetime(2027, 3, 1, tzinfo=UTC).timestamp())
    assert list(backend.verify_usage(OCTOBER)) == []
