"""The changing commands of the simulated accounting manager."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent_moab.simulator.request import Answer, RefusedError
from waldur_site_agent_moab.simulator.state import (
    SimAccount,
    SimAllocation,
    SimFund,
    SimTransaction,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from waldur_site_agent_moab.simulator.request import Request
    from waldur_site_agent_moab.simulator.state import SimMam


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
