"""The listing commands of the simulated accounting manager."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from waldur_site_agent_moab.simulator.request import Answer, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from waldur_site_agent_moab.simulator.request import Request
    from waldur_site_agent_moab.simulator.state import SimAllocation, SimCharge, SimFund, SimMam

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
        _fund(state, fund)
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


def _fund(state: SimMam, fund: SimFund) -> Row:
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
