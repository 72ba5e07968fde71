"""The commands: what is sent, how it is run, and what its answers mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from waldur_site_agent.backends import (
    AddMembers,
    DeleteResource,
    PermanentError,
    RemoveMembers,
    Result,
    TemporaryError,
)
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent_moab import commands
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.client import (
    MamNotPermittedError,
    MamUnavailableError,
    UserUnknownError,
    failure,
)
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.simulator import SimulatedMam

RAW = ("--raw", "--quiet", "--show")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            commands.list_accounts(),
            ("mam-list-accounts", *RAW, "Name,Active,Users,Organization"),
        ),
        (commands.list_funds(), ("mam-list-funds", *RAW, "Id,Constraints")),
        (
            commands.list_allocations("7"),
            ("mam-list-allocations", "-f", "7", *RAW, "Id,Fund,Amount,Deposited,Active"),
        ),
        (
            commands.list_withdrawals(),
            ("mam-list-transactions", "-A", "Withdraw", *RAW, "Fund,Amount"),
        ),
        (
            commands.list_charges(date(2026, 9, 29), date(2026, 12, 3)),
            ("mam-list-usagerecords", "-s", "2026-09-29", "-e", "2026-12-03", *RAW,
             "Account,User,StartTime,EndTime,Charge"),
        ),
        (
            commands.create_account("a", "Ocean; $(reboot) 'x'", "p"),
            ("mam-create-account", "-a", "a", "-d", "Ocean; $(reboot) 'x'", "-o", "p"),
        ),
        (commands.create_fund("a"), ("mam-create-fund", "-a", "a")),
        (
            commands.deposit("7", "a", Decimal("150.50")),
            ("mam-deposit", "-f", "7", "-a", "a", "-z", "150.5"),
        ),
        (commands.deposit("7", "a", Decimal("1E+3")),
         ("mam-deposit", "-f", "7", "-a", "a", "-z", "1000")),
        (commands.withdraw("7", Decimal(5)), ("mam-withdraw", "-f", "7", "-z", "5")),
        (commands.add_user("a", "ada"), ("mam-modify-account", "-a", "a", "--add-user", "ada")),
        (commands.remove_user("a", "ada"), ("mam-modify-account", "-a", "a", "--del-user", "ada")),
        (commands.set_active("a", active=False), ("mam-modify-account", "-a", "a", "-A", "False")),
        (commands.delete_fund("7"), ("mam-delete-fund", "-f", "7")),
        (commands.delete_account("a"), ("mam-delete-account", "-a", "a")),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)  # fmt: skip
def test_commands_are_argument_vectors(argv: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert expected == argv


@pytest.mark.parametrize(
    "build",
    [
        lambda: commands.delete_account(""),
        lambda: commands.add_user("a", "-x"),
        lambda: commands.list_allocations(""),
        lambda: commands.deposit("7", "a", Decimal(0)),
        lambda: commands.deposit("7", "a", Decimal(-5)),
        lambda: commands.withdraw("7", Decimal("0.001")),
    ],
)
def test_what_would_mean_something_else_is_never_sent(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"empty word|amount"):
        build()


@pytest.mark.parametrize(
    ("said", "family", "remedy"),
    [
        ("Failed to connect to server: Connection refused", MamUnavailableError, "mam-server"),
        ("User agent is not authorized to do that", MamNotPermittedError, "as root"),
        ("User ada does not exist", UserUnknownError, "mam-create-user -u ada"),
        ("Insufficient balance", TemporaryError, "computed anew"),
        ("Ouch", TemporaryError, "run the command by hand"),
        ("", TemporaryError, "run the command by hand"),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_failures_are_temporary_and_name_command_answer_and_remedy(
    said: str, family: type[TemporaryError], remedy: str, stream: str
) -> None:
    outputs = (said, "") if stream == "stdout" else ("", said)
    error = failure(CommandResult(commands.add_user("a", "ada"), 76, *outputs))
    assert type(error) is family
    assert "mam-modify-account -a a --add-user ada -> exit code 76" in str(error)
    assert remedy in str(error)
    assert said in str(error)


def test_an_exit_code_of_zero_is_success_whatever_is_said() -> None:
    assert failure(CommandResult(("mam-deposit",), 0, "done", "warning: old")) is None


def settings(directory: Path) -> MoabSettings:
    return MoabSettings(
        mam_bin_path=directory / "bin", lock_file=directory / "lock", command_timeout_seconds=30
    )


def test_commands_that_are_missing_or_hang_are_temporary_trouble_with_a_remedy(
    tmp_path: Path,
) -> None:
    backend = MoabBackend(settings(tmp_path), {})
    with pytest.raises(MamUnavailableError, match=r"mam-list-accounts cannot be .*mam_bin_path"):
        backend.observe()
    (tmp_path / "bin").mkdir()
    hanging = tmp_path / "bin" / "mam-list-accounts"
    hanging.write_text("#!/bin/sh\nsleep 600\n", encoding="utf-8")
    hanging.chmod(0o755)
    chosen = settings(tmp_path).model_copy(update={"command_timeout_seconds": 0.2})
    with pytest.raises(MamUnavailableError, match=r"no answer within 0.2 s.*raise command_timeout"):
        MoabBackend(chosen, {}).observe()


def test_one_user_who_is_refused_stops_nobody_and_a_failed_removal_is_told(
    tmp_path: Path,
) -> None:
    mam = SimulatedMam()
    mam.state.unknown_users.append("bob")
    mam.run(["mam-create-account", "-a", "ocean", "-d", "x", "-o", "climate"])
    backend = MoabBackend(settings(tmp_path), {}, runner=mam.runner())
    (outcome,) = backend.apply([AddMembers("ocean", ("ada", "bob", "cyd"))])
    assert outcome.result is Result.DONE
    (skipped,) = outcome.skipped
    assert skipped.name == "bob"
    assert "mam-create-user -u bob" in str(skipped.error)
    assert set(mam.state.accounts["ocean"].users) == {"ada", "cyd"}

    class Stubborn:
        def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
            if "--del-user" in argv and argv[-1] == "ada":
                return CommandResult(tuple(argv), 1, "", "Ouch\n")
            return mam.runner().run(argv, timeout)

    stubborn = MoabBackend(settings(tmp_path), {}, runner=Stubborn())
    (outcome,) = stubborn.apply([RemoveMembers("ocean", ("ada", "cyd"))])
    assert isinstance(outcome.error, TemporaryError)
    assert set(mam.state.accounts["ocean"].users) == {"ada"}


def test_names_are_sent_as_they_are_spelled(tmp_path: Path) -> None:
    mam = SimulatedMam()
    mam.run(["mam-create-account", "-a", "Ocean", "-d", "x", "-o", "climate"])
    mam.run(["mam-modify-account", "-a", "Ocean", "--add-user", "Ada,-gone"])
    backend = MoabBackend(settings(tmp_path), {}, runner=mam.runner())
    assert backend.observe().resources["ocean"].members == {"Ada"}
    (outcome,) = backend.apply([RemoveMembers("ocean", ("ada",))])
    assert outcome.result is Result.DONE
    assert set(mam.state.accounts["Ocean"].users) == {"gone"}


def test_an_account_whose_money_is_shared_is_not_deleted(tmp_path: Path) -> None:
    mam = SimulatedMam()
    mam.run(["mam-create-account", "-a", "ocean", "-d", "x", "-o", "climate"])
    mam.run(["mam-create-fund", "-a", "ocean"])
    mam.state.funds[1].constraints.append("Account=physics")
    before = mam.state.to_json()
    backend = MoabBackend(settings(tmp_path), {}, runner=mam.runner())
    (outcome,) = backend.apply([DeleteResource("ocean")])
    assert isinstance(outcome.error, PermanentError)
    assert before == mam.state.to_json()
