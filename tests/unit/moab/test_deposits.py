"""Deposits are money: whatever happens in between, what is left and what was used is the limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import KilledError, KillSwitch
from waldur_site_agent.backends import (
    CreateResource,
    Outcome,
    PermanentError,
    Result,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent.planning.limits import ordered_limits, supported_limits
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.simulator import Outage, SimulatedMam

MOMENT = datetime(2026, 11, 2, 12, tzinfo=UTC)
REQUEST = ResourceRequest(
    resource_name="Ocean",
    project_slug="p-climate",
    project_name="Climate",
    customer_slug="c-uni",
    customer_name="University",
)
NAME = "a-ocean"
Falls = Literal["stays", "falls"]


@dataclass
class Bank:
    """One resource's money, and agents that remember nothing."""

    mam: SimulatedMam
    lock_file: Path
    expects: Falls = "stays"

    def backend(self, runner: Runner | None = None) -> MoabBackend:
        chosen = MoabSettings(lock_file=self.lock_file, deposited_after_withdrawal=self.expects)
        return MoabBackend(chosen, {}, runner=runner or self.mam.runner())

    def create(self, limit: Decimal | None = None, runner: Runner | None = None) -> Outcome:
        backend = self.backend(runner)
        limits = {} if limit is None else {"deposit": limit}
        (outcome,) = backend.apply([CreateResource(backend.place(REQUEST, NAME), limits)])
        return outcome

    def set_limit(self, limit: Decimal, runner: Runner | None = None) -> Outcome:
        (outcome,) = self.backend(runner).apply([SetLimits(NAME, {"deposit": limit})])
        return outcome

    def charge(self, amount: Decimal) -> None:
        self.mam.charge(NAME, "ada", amount, MOMENT, MOMENT)

    @property
    def left(self) -> Decimal:
        return self.mam.state.left_of(NAME)

    @property
    def used(self) -> Decimal:
        return self.mam.state.used_of(NAME)

    @property
    def seen(self) -> Decimal:
        return self.backend().observe().resources[NAME].limits["deposit"]

    def told(self, program: str) -> int:
        return self.mam.commands_run[program]


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    made = Bank(SimulatedMam(), tmp_path / "lock")
    assert made.create(Decimal(100)).result is Result.DONE
    return made


CENTS = st.decimals(min_value=0, max_value=200, places=2)
CRASHES = st.sampled_from(["none", "killed before", "killed after", "answer lost", "refused"])
CHANGES = st.tuples(st.just("limit"), CENTS, CRASHES, st.integers(1, 9))
PRICES = st.decimals(min_value=0, max_value=200, places=4)
CHARGES = st.tuples(st.just("charge"), PRICES, st.just("none"), st.just(0))


def attempt(bank: Bank, limit: Decimal, crash: str, step: int) -> None:
    """One agent's attempt at a limit, which may be its last."""
    match crash:
        case "killed before" | "killed after":
            blade = KillSwitch(at=step, after_effect=crash == "killed after")
            try:
                bank.set_limit(limit, blade.runner(bank.mam.runner()))
            except KilledError:
                return
        case "answer lost" | "refused":
            outage = Outage.LOST_ANSWER if crash == "answer lost" else Outage.REFUSED
            with bank.mam.outage(outage, after_commands=step - 1):
                bank.set_limit(limit)
        case _:
            bank.set_limit(limit)


@pytest.mark.guarantee("moab: Money")
@settings(max_examples=120)
@given(st.lists(st.one_of(CHANGES, CHARGES), max_size=8), st.sampled_from(["stays", "falls"]))
def test_after_any_history_what_is_left_and_used_is_the_last_limit_that_was_possible(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[str, Decimal, str, int]],
    semantics: Falls,
) -> None:
    bank = Bank(SimulatedMam(), tmp_path_factory.getbasetemp() / "moab-lock", semantics)
    bank.mam.state.deposited_falls = semantics == "falls"
    bank.create()
    limit = Decimal(0)
    for kind, amount, crash, step in history:
        if kind == "charge":
            bank.charge(min(amount, bank.left))
            continue
        is_possible = amount >= bank.used
        attempt(bank, amount, crash, step)
        outcome = bank.set_limit(amount)
        assert (outcome.result is not Result.FAILED) == is_possible, outcome
        limit = amount if is_possible else limit
        assert limit == bank.left + bank.used
        assert limit == bank.seen
        again = bank.set_limit(limit)
        assert again.result is Result.UNCHANGED, again


def test_a_limit_is_the_total_so_only_the_difference_is_deposited(bank: Bank) -> None:
    bank.charge(Decimal("30.25"))
    assert bank.set_limit(Decimal(150)).result is Result.DONE
    assert [a[-1] for a in bank.mam.history if a[0] == "mam-deposit"] == ["100", "50"]
    assert (Decimal("119.75"), Decimal(150)) == (bank.left, bank.seen)


def test_a_limit_cannot_be_lowered_below_what_was_used_and_then_nothing_changes(
    bank: Bank,
) -> None:
    bank.charge(Decimal(60))
    outcome = bank.set_limit(Decimal(50))
    assert isinstance(outcome.error, PermanentError)
    assert "a-ocean: the limit cannot become 50: 60 of the 100 bought" in str(outcome.error)
    assert (Decimal(40), 0) == (bank.left, bank.told("mam-withdraw"))


def test_what_expired_cannot_be_taken_back(bank: Bank) -> None:
    for allocation in bank.mam.state.allocations.values():
        allocation.active = False
    assert isinstance(bank.set_limit(Decimal(50)).error, PermanentError)
    assert bank.set_limit(Decimal(130)).result is Result.DONE
    assert Decimal(130) == bank.seen
    assert bank.set_limit(Decimal(100)).result is Result.DONE
    assert (Decimal(100), Decimal(100)) == (bank.left, bank.seen)


def test_amounts_are_rounded_to_cents_half_to_even_and_agree_afterwards(bank: Bank) -> None:
    wanted = Decimal("100.125")
    assert bank.set_limit(wanted).result is Result.DONE
    assert Decimal("100.12") == bank.seen
    assert bank.backend().limits_agree("deposit", wanted, bank.seen)
    assert bank.set_limit(wanted).result is Result.UNCHANGED


@pytest.mark.parametrize("wanted", ["150", "50", "110.01", "0"])
def test_parts_of_a_cent_that_somebody_deposited_by_hand_stand_in_nobodys_way(
    bank: Bank, wanted: str
) -> None:
    bank.mam.run(["mam-deposit", "-f", "1", "-z", "10.005"])
    assert Decimal(110) == bank.seen
    assert bank.set_limit(Decimal(wanted)).result is Result.DONE
    assert Decimal(wanted) == bank.seen
    assert bank.set_limit(Decimal(wanted)).result is Result.UNCHANGED


def test_an_overdrawn_fund_can_be_topped_up_but_not_lowered(bank: Bank) -> None:
    bank.charge(Decimal(100))
    (allocation,) = bank.mam.state.allocations.values()
    allocation.amount -= 5  # a credit limit that jobs made use of
    assert "so 100 is the lowest" in str(bank.set_limit(Decimal(90)).error)
    assert bank.set_limit(Decimal(120)).result is Result.DONE
    assert Decimal(15) == bank.left


@pytest.mark.parametrize("actual", ["stays", "falls"])
def test_the_first_withdrawal_shows_that_the_setting_is_wrong(bank: Bank, actual: Falls) -> None:
    bank.mam.state.deposited_falls = actual == "falls"
    bank.expects = "stays" if actual == "falls" else "falls"
    outcome = bank.set_limit(Decimal(60))
    assert isinstance(outcome.error, PermanentError)
    assert f"set deposited_after_withdrawal: {actual}" in str(outcome.error)
    bank.expects = actual
    assert bank.set_limit(Decimal(60)).result is Result.UNCHANGED
    assert (Decimal(60), Decimal(60)) == (bank.left, bank.seen)


def no_fund(bank: Bank) -> None:
    bank.mam.state.funds.clear()


def two_funds(bank: Bank) -> None:
    bank.mam.run(["mam-create-fund", "-a", NAME])


def a_shared_fund(bank: Bank) -> None:
    (fund,) = bank.mam.state.funds.values()
    fund.constraints.append("Account=physics")


def books_that_do_not_balance(bank: Bank) -> None:
    (allocation,) = bank.mam.state.allocations.values()
    allocation.amount += 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_fund, "has no fund"),
        (two_funds, r"has 2 funds \(1, 3\)"),
        (a_shared_fund, "has other constraints too"),
        (books_that_do_not_balance, "books do not balance"),
    ],
)
def test_money_that_is_not_understood_is_reported_and_never_guessed_about(
    bank: Bank, spoil: Callable[[Bank], None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    bank.mam.run(["mam-modify-account", "-a", NAME, "--add-user", "ada"])
    spoil(bank)
    observer = bank.backend()
    for _ in range(2):
        assert dict(observer.observe().resources[NAME].limits) == {}
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{NAME}: ")
    with pytest.raises(PermanentError, match=rf"{NAME}: .*{words}"):
        raise bank.set_limit(Decimal(150)).error or AssertionError
    assert bank.told("mam-deposit") == 1
    warnings = [check.detail for check in observer.diagnose() if check.name == "funds"]
    assert warnings == [warning]


def test_without_the_withdrawals_only_untouched_funds_are_understood(bank: Bank) -> None:
    runner = Deaf(bank.mam.runner(), "mam-list-transactions")
    assert bank.set_limit(Decimal(120), runner).result is Result.DONE
    bank.charge(Decimal(1))
    with pytest.raises(PermanentError, match="its withdrawals could not be read"):
        raise bank.set_limit(Decimal(150), runner).error or AssertionError
    assert Decimal(119) == bank.left
    assert dict(bank.backend(runner).observe().resources[NAME].limits) == {}


class Deaf:
    """A site whose MAM does not know one of the commands' options."""

    def __init__(self, inner: Runner, program: str) -> None:
        self.inner, self.program = inner, program

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if argv[0] == self.program:
            return CommandResult(tuple(argv), 1, "", "Unknown option: A\n")
        return self.inner.run(argv, timeout)


def test_a_job_charged_between_reading_and_withdrawing_costs_nobody_money(bank: Bank) -> None:
    class Busy:
        def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
            if argv[0] == "mam-withdraw":
                bank.charge(Decimal(30))
            return bank.mam.runner().run(argv, timeout)

    outcome = bank.set_limit(Decimal(20), Busy())
    assert isinstance(outcome.error, TemporaryError)
    assert (Decimal(70), Decimal(30)) == (bank.left, bank.used)
    assert isinstance(bank.set_limit(Decimal(20)).error, PermanentError)
    assert bank.set_limit(Decimal(30)).result is Result.DONE
    assert (Decimal(0), Decimal(30)) == (bank.left, bank.seen)


def test_two_agents_that_raise_the_same_limit_deposit_once(bank: Bank) -> None:
    class Meanwhile:
        happened = False

        def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
            if argv[0] == "mam-list-accounts" and not Meanwhile.happened:
                Meanwhile.happened = True
                impatient = MoabBackend(
                    bank.backend().settings, {}, runner=bank.mam.runner(), lock_wait_seconds=0.01
                )
                (other,) = impatient.apply([SetLimits(NAME, {"deposit": Decimal(150)})])
                assert isinstance(other.error, TemporaryError)
                assert "deposits are made by one agent at a time" in str(other.error)
            return bank.mam.runner().run(argv, timeout)

    assert bank.set_limit(Decimal(150), Meanwhile()).result is Result.DONE
    assert bank.set_limit(Decimal(150)).result is Result.UNCHANGED
    assert Decimal(150) == bank.left


def test_a_deposit_by_hand_just_before_is_taken_into_account(bank: Bank) -> None:
    class Treasurer:
        readings = 0

        def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
            if argv[0] == "mam-list-allocations":
                Treasurer.readings += 1
                if Treasurer.readings == 2:
                    bank.mam.run(["mam-deposit", "-f", "1", "-z", "20"])
            return bank.mam.runner().run(argv, timeout)

    assert bank.set_limit(Decimal(150), Treasurer()).result is Result.DONE
    assert [a[-1] for a in bank.mam.history if a[0] == "mam-deposit"] == ["100", "20", "30"]


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity", "-Infinity"])
def test_an_impossible_deposit_is_refused(bank: Bank, amount: str) -> None:
    assert isinstance(bank.set_limit(Decimal(amount)).error, PermanentError)
    assert Decimal(100) == bank.left


def test_a_negative_deposit_that_was_ordered_means_that_there_is_no_price(
    bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    ordered = {"deposit": Decimal(-1), "cpu": Decimal(5)}
    assert bank.backend().limits_to_set("Ocean", ordered) == {}
    assert "Ocean: a deposit of -1 was ordered" in caplog.text
    ordered = {"deposit": Decimal(0), "cpu": Decimal(5)}
    assert bank.backend().limits_to_set("Ocean", ordered) == {"deposit": 0}


def test_other_components_are_named_once_and_ignored(
    bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"deposit": Decimal(120), "licences": Decimal(5)}
    for _ in range(2):
        list(bank.backend().apply([SetLimits(NAME, limits)]))
    assert Decimal(120) == bank.left
    assert caplog.text.count("component licences is ignored") == 1


@pytest.mark.parametrize(("targets", "expected"), [({"deposit": 5}, 50), ({"cpu": 5}, None)])
def test_a_sold_unit_may_be_worth_several_units_of_the_deposit(
    bank: Bank, targets: dict[str, int], expected: int | None
) -> None:
    """What MOAB does not know is left out, as any other component of that kind."""
    described = {"measured_unit": "packages", "label": "Package", "accounting_type": "limit"}
    factors = {name: {"factor": factor} for name, factor in targets.items()}
    component = ComponentSettings.model_validate({**described, "target_components": factors})
    components = {"package": component.component("package")}
    ordered = {"package": Decimal(10)}
    limits = supported_limits(bank.backend(), "Ocean", ordered, components)
    wanted = ordered_limits(limits, components)
    assert wanted == ({} if expected is None else {"deposit": expected})
