"""An accounting manager within this process, or shared between processes by a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from waldur_site_agent.backends import simulation
from waldur_site_agent.backends.simulation import (
    Answer,
    HungError,
    SimulatedTool,
)
from waldur_site_agent_moab.simulator.state import (
    Outage,
    RefusedError,
    Request,
    SimAccount,
    SimAllocation,
    SimCharge,
    SimFund,
    SimMam,
    SimTransaction,
    new_state,
    read_request,
)


def create_account(state: SimMam, request: Request) -> Answer:
    """``mam-create-account``."""
    name = request.required("-a")
    if name in state.accounts:
        raise RefusedError(f"Account {name} already exists")
    description, organization = (request.options.get(option, "") for option in ("-d", "-o"))
    state.accounts[name] = SimAccount(name, description, organization)
    return Answer(0, "Successfully created 1 account\n")


def delete_account(state: SimMam, request: Request) -> Answer:
    """``mam-delete-account``; its funds stay."""
    del state.accounts[_account(state, request).name]
    return Answer(0, "Successfully deleted 1 account\n")


def modify_account(state: SimMam, request: Request) -> Answer:
    """``mam-modify-account``."""
    account = _account(state, request)
    for user in _users(request, "--add-user"):
        if user in state.unknown_users:
            raise RefusedError(f"User {user} does not exist")
        account.users[user.lstrip("+-")] = not user.startswith("-")
    for user in _users(request, "--del-user"):
        if user not in account.users:
            raise RefusedError(f"User {user} is not a member of account {account.name}")
        del account.users[user]
    if "-A" in request.options:
        account.active = request.options["-A"] == "True"
    return Answer(0, "Successfully modified 1 account\n")


def create_fund(state: SimMam, request: Request) -> Answer:
    """``mam-create-fund``."""
    name = _account(state, request).name
    number = state.new_id()
    state.funds[number] = SimFund(number, [f"Account={name}"])
    return Answer(0, f"Successfully created 1 fund with id {number}\n")


def delete_fund(state: SimMam, request: Request) -> Answer:
    """``mam-delete-fund``, with its allocations."""
    fund = _fund(state, request)
    del state.funds[fund.id]
    for allocation in state.allocations_of(fund.id):
        del state.allocations[allocation.id]
    return Answer(0, "Successfully deleted 1 fund\n")


def deposit(state: SimMam, request: Request) -> Answer:
    """``mam-deposit``: into the active allocation, or a new one."""
    fund, amount = _fund(state, request), _amount(request)
    name = request.options.get("-a")
    if name is not None and f"Account={name}" not in fund.constraints:
        raise RefusedError(f"Fund {fund.id} is not for account {name}")
    active = [a for a in state.allocations_of(fund.id) if a.active]
    if not active:
        active = [SimAllocation(state.new_id(), fund.id)]
        state.allocations[active[0].id] = active[0]
    active[-1].amount += amount
    active[-1].deposited += amount
    state.transactions.append(SimTransaction("Deposit", fund.id, amount))
    return Answer(0, f"Successfully deposited {amount} credits into fund {fund.id}\n")


def withdraw(state: SimMam, request: Request) -> Answer:
    """``mam-withdraw``: from active allocations, oldest first, never more than is there."""
    fund, amount = _fund(state, request), _amount(request)
    active = [a for a in state.allocations_of(fund.id) if a.active]
    if sum(a.amount for a in active) < amount:
        raise RefusedError(f"Insufficient balance in fund {fund.id}")
    rest = amount
    for allocation in active:
        portion = min(allocation.amount, rest)
        allocation.amount -= portion
        if state.deposited_falls:
            allocation.deposited -= portion
        rest -= portion
    state.transactions.append(SimTransaction("Withdraw", fund.id, amount))
    return Answer(0, f"Successfully withdrew {amount} credits from fund {fund.id}\n")


CHANGES: Mapping[str, tuple[Callable[[SimMam, Request], Answer], tuple[str, ...]]] = {
    "mam-create-account": (create_account, ("-a", "-d", "-o")),
    "mam-delete-account": (delete_account, ("-a",)),
    "mam-modify-account": (modify_account, ("-a", "-A", "--add-user", "--del-user")),
    "mam-create-fund": (create_fund, ("-a",)),
    "mam-delete-fund": (delete_fund, ("-f",)),
    "mam-deposit": (deposit, ("-f", "-a", "-z")),
    "mam-withdraw": (withdraw, ("-f", "-z")),
}
"""By program, what answers and the options that it knows."""


def _account(state: SimMam, request: Request) -> SimAccount:
    name = request.required("-a")
    if name not in state.accounts:
        raise RefusedError(f"Account {name} does not exist")
    return state.accounts[name]


def _fund(state: SimMam, request: Request) -> SimFund:
    number = request.required("-f")
    if not number.isdigit() or int(number) not in state.funds:
        raise RefusedError(f"Fund {number} does not exist")
    return state.funds[int(number)]


def _amount(request: Request) -> Decimal:
    amount = Decimal(request.required("-z"))
    if amount <= 0:
        raise RefusedError("The amount must be positive")
    return amount


def _users(request: Request, option: str) -> list[str]:
    return [user for user in request.options.get(option, "").split(",") if user]


Row = dict[str, object]


def list_accounts(state: SimMam, request: Request) -> Answer:
    """``mam-list-accounts``."""
    wanted = request.options.get("-a")
    rows: list[Row] = [
        {
            "Name": account.name,
            "Active": account.active,
            "Users": ",".join(user if on else f"-{user}" for user, on in account.users.items()),
            "Organization": account.organization,
            "Description": account.description,
        }
        for account in state.accounts.values()
        if wanted in (None, account.name)
    ]
    return _table(rows, request)


def list_funds(state: SimMam, request: Request) -> Answer:
    """``mam-list-funds``."""
    wanted = request.options.get("-a")
    rows = [
        _fund_row(state, fund)
        for fund in state.funds.values()
        if wanted is None or f"Account={wanted}" in fund.constraints
    ]
    return _table(rows, request)


def list_allocations(state: SimMam, request: Request) -> Answer:
    """``mam-list-allocations``."""
    wanted = request.options.get("-f")
    rows = [_allocation(a) for a in state.allocations.values() if wanted in (None, str(a.fund))]
    return _table(rows, request)


def list_transactions(state: SimMam, request: Request) -> Answer:
    """``mam-list-transactions``."""
    wanted = request.options.get("-A")
    rows: list[Row] = [
        {"Action": done.action, "Fund": done.fund, "Amount": done.amount}
        for done in state.transactions
        if wanted in (None, done.action)
    ]
    return _table(rows, request)


def list_usagerecords(state: SimMam, request: Request) -> Answer:
    """``mam-list-usagerecords``; a job that started before ``-s`` is not listed."""
    account = request.options.get("-a")
    first, last = (_day(request.options[o]) if o in request.options else None for o in ("-s", "-e"))
    rows = [
        _charge(charge)
        for charge in state.charges
        if account in (None, charge.account)
        and (first is None or charge.start >= first)
        and (last is None or charge.end < last)
    ]
    return _table(rows, request)


LISTS: Mapping[str, tuple[Callable[[SimMam, Request], Answer], tuple[str, ...]]] = {
    "mam-list-accounts": (list_accounts, ("-a", "--show")),
    "mam-list-funds": (list_funds, ("-a", "--show")),
    "mam-list-allocations": (list_allocations, ("-f", "--show")),
    "mam-list-transactions": (list_transactions, ("-A", "--show")),
    "mam-list-usagerecords": (list_usagerecords, ("-a", "-s", "-e", "--show")),
}
"""By program, what answers and the options that it knows."""


def _table(rows: Iterable[Row], request: Request) -> Answer:
    if not {"--raw", "--quiet"} <= request.switches:
        raise RefusedError("only --raw --quiet is simulated")
    columns = request.required("--show").split(",")
    lines = []
    for row in rows:
        if missing := [name for name in columns if name not in row]:
            raise RefusedError(f"Invalid attribute: {missing[0]}")
        lines.append("|".join(str(row[name]) for name in columns))
    return Answer(0, "".join(f"{line}\n" for line in lines))


def _fund_row(state: SimMam, fund: SimFund) -> Row:
    balance = sum(a.amount for a in state.allocations_of(fund.id) if a.active)
    return {"Id": fund.id, "Constraints": ",".join(fund.constraints), "Balance": balance}


def _allocation(allocation: SimAllocation) -> Row:
    return {
        "Id": allocation.id,
        "Fund": allocation.fund,
        "Amount": allocation.amount,
        "Deposited": allocation.deposited,
        "Active": allocation.active,
    }


def _charge(charge: SimCharge) -> Row:
    return {
        "Account": charge.account,
        "User": charge.user,
        "StartTime": charge.start,
        "EndTime": charge.end or "",
        "Charge": charge.charge,
    }


def _day(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


VERSION = "simulated accounting manager\n"
_ANSWERS = {**LISTS, **CHANGES}


class SimulatedMam(SimulatedTool[SimMam]):
    """Answers argument vectors as the administrator's guide says, for all that the plugin sends."""

    def __init__(self, *, state_file: Path | None = None) -> None:
        super().__init__(new_state(), SimMam.from_json, state_file)

    def answer(self, state: SimMam, program: str, words: list[str]) -> Answer:
        """See :meth:`SimulatedTool.answer`."""
        outage = _outage(state)
        if outage is Outage.HUNG:
            raise HungError
        if outage is Outage.REFUSED:
            return Answer(1, "", "Failed to connect to server: Connection refused\n")
        if outage is Outage.NO_PERMISSION and program in CHANGES:
            return Answer(1, "", "User agent is not authorized to perform this action\n")
        answer = _answer(state, program, words)
        if outage is Outage.LOST_ANSWER:
            raise HungError
        return answer

    def charge(
        self, account: str, user: str, amount: Decimal, start: datetime, end: datetime
    ) -> None:
        """Let a job end that costs this much.

        Raises:
            ValueError: the account's active allocations do not hold as much.
        """
        with self.change() as state:
            funds = {fund.id for fund in state.funds_of(account)}
            active = [a for a in state.allocations.values() if a.fund in funds and a.active]
            if sum(a.amount for a in active) < amount:
                raise ValueError(f"{account} cannot pay {amount}")
            rest = amount
            for allocation in active:
                portion = min(allocation.amount, rest)
                allocation.amount -= portion
                rest -= portion
            seconds = (int(start.timestamp()), int(end.timestamp()))
            state.charges.append(SimCharge(account, user, *seconds, amount))

    @contextmanager
    def outage(self, kind: Outage, *, after_commands: int = 0) -> Iterator[None]:
        """Have an outage while the body runs, at once or after some more commands."""
        with self.change() as state:
            state.outage, state.commands_until_outage = kind, after_commands
        try:
            yield
        finally:
            with self.change() as state:
                state.outage = None


def _outage(state: SimMam) -> Outage | None:
    if state.outage is not None and state.commands_until_outage > 0:
        state.commands_until_outage -= 1
        return None
    return state.outage


def _answer(state: SimMam, program: str, words: list[str]) -> Answer:
    if program not in _ANSWERS:
        return Answer(127, "", f"{program}: not simulated\n")
    if "--version" in words:
        return Answer(0, VERSION)
    answer, known = _ANSWERS[program]
    try:
        return answer(state, read_request(words, known))
    except RefusedError as refusal:
        return refusal.answer


MODULE = "waldur_site_agent_moab.simulator"
PROGRAMS = (*LISTS, *CHANGES)


def write_executables(directory: Path, state_file: Path) -> Path:
    """Make the directory with its commands, all on the state in ``state_file``; return it."""
    return simulation.write_executables(directory, state_file, MODULE, PROGRAMS)
