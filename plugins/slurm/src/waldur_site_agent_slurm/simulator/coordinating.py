"""``sacctmgr add coordinator`` and ``sacctmgr remove coordinator``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator.request import Answer, RefusedError, names, read_request
from waldur_site_agent_slurm.simulator.state import user_names

if TYPE_CHECKING:
    from waldur_site_agent_slurm.simulator.state import SimAccount, SimState

_KEYS = ("account", "accounts", "names", "name")


def add_coordinator(state: SimState, words: list[str]) -> Answer:
    """Let users change the members of accounts and of all below them."""
    accounts, users = _named(state, words)
    for account in accounts:
        account.coordinators += [user for user in users if user not in account.coordinators]
    said = [
        " Adding Coordinator User(s)",
        *(f"  {user}" for user in users),
        " To Account(s) and all sub-accounts",
        *(f"  {account.name}" for account in accounts),
    ]
    return Answer(0, _text(said))


def remove_coordinator(state: SimState, words: list[str]) -> Answer:
    """Take the right where it was given; what comes from an account above stays."""
    accounts, users = _named(state, words)
    said = [
        " Removing Coordinators with user name",
        *(f"  {user}" for user in users),
        " From Account(s)",
        *(f"  {account.name}" for account in accounts),
    ]
    gone = [(user, a) for a in accounts for user in users if user in a.coordinators]
    if not gone:
        return Answer(1, _text([*said, " Nothing removed"]))
    said.append(" Removed Coordinators (sub accounts not listed)...")
    for user, account in gone:
        account.coordinators.remove(user)
        said.append(f"  U = {user:<9} A = {account.name:<10}")
    return Answer(0, _text(said))


def _named(state: SimState, words: list[str]) -> tuple[list[SimAccount], list[str]]:
    where = read_request(words, _KEYS).where
    accounts = names(where.get("account", "") or where.get("accounts", ""))
    users = user_names(state, where.get("names", "") or where.get("name", ""))
    for user in users:
        if user not in state.users:
            _refuse("user", user)
    for account in accounts:
        if account not in state.accounts:
            _refuse("account", account)
    return [state.accounts[name] for name in accounts], users


def _refuse(kind: str, name: str) -> None:
    raise RefusedError(Answer(1, "", f" You specified a non-existent {kind} '{name}'.\n"))


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
