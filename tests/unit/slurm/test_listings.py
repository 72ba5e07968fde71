"""Recorded listings of Slurm's commands are read as their files say."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from waldur_site_agent_slurm import facts

LISTINGS = Path(__file__).parents[2] / "data" / "slurm" / "listings"
FILES = sorted(LISTINGS.glob("*/*.txt"))


def _accounts(output: str) -> Iterable[str]:
    cluster = facts.parse_accounts(output)
    for name in sorted(cluster.accounts):
        account = cluster.accounts[name]
        said = [f"account {name}", f"organization {account.organization}"]
        said += [f"under {account.parent}"] if account.parent else []
        said += [f"users {' '.join(sorted(account.users))}"] if account.users else []
        said += [f"{key}={amount}" for key, amount in sorted(account.limits.items())]
        said += [f"qos {account.qos}"] if account.qos else []
        said += [f"default qos {account.default_qos}"] if account.default_qos else []
        said += [f"submit {account.submit_limit}"] if account.submit_limit is not None else []
        said += [f"unreadable {text}" for text in account.unreadable]
        yield "; ".join(said)


def _users(output: str) -> Iterable[str]:
    for name, user in sorted(facts.parse_users(output, "wsatest").items()):
        accounts = ", ".join(sorted(user.accounts)) or "no account"
        yield f"user {name} in {accounts}; default {user.default_account}; {user.admin_level}"


def _jobs(output: str) -> Iterable[str]:
    return [f"job {job.id} of {job.user} in {job.account}" for job in facts.parse_jobs(output)]


READERS: dict[str, Callable[[str], Iterable[str]]] = {
    "account": _accounts,
    "user": _users,
    "tres": lambda output: [f"tres {name}" for name in sorted(facts.parse_tres_names(output))],
    "qos": lambda output: [f"qos {name}" for name in facts.parse_names(output)],
    "squeue": _jobs,
}


def recorded(file: Path) -> tuple[list[str], str]:
    """What a file says that its listing means, and what the agent reads in it."""
    before, _, listing = file.read_text(encoding="utf-8").partition("$ ")
    command, _, output = listing.partition("\n")
    words = shlex.split(command)
    what = words[0] if words[0] in READERS else next(word for word in words if word in READERS)
    means = [line.removeprefix("means: ") for line in before.splitlines()]
    return means, "\n".join(READERS[what](output))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_recorded_listing_is_read_as_its_file_says(file: Path) -> None:
    means, read = recorded(file)
    assert means == read.splitlines()


@pytest.mark.parametrize("version", ["22.05", "24.11"])
def test_every_version_has_the_listings_that_the_agent_asks_for(version: str) -> None:
    recorded_ones = {file.stem for file in (LISTINGS / version).glob("*.txt")}
    assert {"accounts", "users", "tres", "qos", "jobs"} <= recorded_ones
