"""Mistakes of the site: tokens in the wrong place, names that mean more to sudo and systemd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.in_process import run_in_process
from waldur_site_agent.backends.naming import Naming, reserve_usernames
from waldur_site_agent.cli.install import Choices, sudoers, unit
from waldur_site_agent.model.errors import PermanentError

TOKEN = "b8f7e0c19a5d4f2e8c3b6a7d9e0f1a2b3c4d5e6f"
UUID = "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1"


def configuration(**token: Any) -> str:
    offering = {
        "name": "Cluster",
        "waldur_api_url": "https://waldur.example.com",
        "waldur_offering_uuid": UUID,
        **token,
    }
    return yaml.safe_dump({"offerings": [offering]})


PASTED = [
    configuration(waldur_api_token_file=TOKEN),
    configuration(waldur_api_token=f"${{a{TOKEN}}}"),
    configuration(waldur_api_token="x").replace("_token: x", f"_token: *{TOKEN}"),
    configuration(waldur_api_token="x").replace("_token: x", f"_token: !{TOKEN} x"),
    configuration(waldur_api_token="x").replace("_token: x", f"_token: &{TOKEN} &{TOKEN} x"),
    configuration(waldur_api_token="x").replace("_token: x", f"_token: %{TOKEN}"),
    configuration(waldur_api_token="x").replace("_token: x", f"_token: @{TOKEN}"),
    configuration(waldur_api_token="x").replace("_token: x", f"_token: '{TOKEN}"),
    configuration(waldur_api_token="x").replace("_token: x", f"_token: {TOKEN}: x"),
    configuration(waldur_api_token=f"Token {TOKEN}"),
    configuration(waldur_api_token=f"{TOKEN}\u00e9"),
    configuration(waldur_api_token=[TOKEN]),
    configuration(waldur_api_token={TOKEN: 1}),
    configuration(waldur_api_token=TOKEN, waldur_api_token_file="token"),
    configuration(waldur_api_url=f"https://user:{TOKEN}@waldur.example.com", waldur_api_token="x"),
    configuration(waldur_api_url=f"https://waldur.example/?token={TOKEN}", waldur_api_token="x"),
    f"{TOKEN}\n",
    f"- {TOKEN}\n",
]


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("text", PASTED, ids=lambda text: text.replace("\n", " ")[-60:])
@pytest.mark.parametrize("words", [("config", "check"), ("config", "check", "--show"), ("plan",)])
def test_a_token_in_the_wrong_place_is_not_printed(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    extra = ("-m", "report") if words == ("plan",) else ()
    done = run_in_process("waldur-site-agent", *words, *extra, "-c", str(file))
    assert TOKEN not in done.out + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "user", ["%wheel", "ALL", "#0", "root\nx", "a b", "a:b", "WHEEL", "-x", "a%i"]
)
def test_a_user_that_means_more_than_a_user_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match=r"user|letters"):
        Choices(user=user, sudo_homes=True)


def test_percent_signs_of_paths_stay_what_they_are_in_a_unit() -> None:
    text = unit("all", Choices(credential=Path("/etc/%n/token"), config=Path("/etc/%n/c.yaml")))
    assert "%n" not in text.replace("%%n", "")


def test_an_ordinary_user_gets_exactly_their_rule() -> None:
    rule = sudoers(Choices(user="waldur-agent", sudo_homes=True))
    lines = [line for line in rule.splitlines() if line and not line.startswith(("#", "Defaults"))]
    assert {line.split()[0] for line in lines} == {"waldur-agent"}


NAMING = Naming("Slurm", "'root' owns the tree")


@pytest.mark.parametrize("name", ["root", "ROOT", "slurm", "Slurm"])
def test_users_of_the_machine_are_nobody_in_waldur(name: str) -> None:
    with pytest.raises(PermanentError, match="refused"):
        NAMING.user(name)


def test_the_agents_own_user_is_nobody_in_waldur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waldur_site_agent.backends.naming._own_user", lambda: "waldur-agent")
    with pytest.raises(PermanentError, match="refused"):
        NAMING.user("Waldur-Agent")


def test_a_site_reserves_usernames_of_its_own() -> None:
    reserve_usernames(["hpcadmin"])
    try:
        assert not NAMING.is_user("HPCadmin")
        assert NAMING.is_user("ada01")
        assert NAMING.listed_user("hpcadmin") == "hpcadmin"  # whoever is in can be removed
    finally:
        reserve_usernames([])
    assert NAMING.is_user("hpcadmin")
