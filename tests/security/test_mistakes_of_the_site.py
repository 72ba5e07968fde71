"""Mistakes of the site: tokens in the wrong place, names that mean more to sudo and systemd."""

from __future__ import annotations

import re
import traceback
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import yaml
from pydantic import SecretStr

from harness.in_process import run_in_process
from waldur_site_agent.backends.database_session import DatabaseError, open_session
from waldur_site_agent.backends.naming import Naming, reserve_usernames
from waldur_site_agent.cli.install import Choices, sudoers, unit
from waldur_site_agent.config import Budgets
from waldur_site_agent.config.database_url import DatabaseUrl
from waldur_site_agent.config.describing import masked
from waldur_site_agent.events.broker import Address, Subscription
from waldur_site_agent.events.stomp import StompTransport
from waldur_site_agent.model.budget_notices import Budget, BudgetNotice
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.service.budget_channels import Channels
from waldur_site_agent.waldur import Waldur

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
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ([f"--password={TOKEN}"], ["--password=********"]),
        (["--api-key", TOKEN, "{account}"], ["--api-key", "********", "{account}"]),
        ([f"SMTP_PASSWORD={TOKEN}", "x=1"], ["SMTP_PASSWORD=********", "x=1"]),
        (["-H", f"Authorization: Bearer {TOKEN}"], ["-H", "Authorization: ********"]),
        ([f"https://u:{TOKEN}@mail.example"], ["https://********@mail.example"]),
        (["--token-file=/etc/t", "--to", "ops"], ["--token-file=/etc/t", "--to", "ops"]),
    ],
)
def test_a_password_among_the_words_of_a_command_is_not_printed(
    tmp_path: Path, command: list[str], shown: list[str]
) -> None:
    file = tmp_path / "config.yaml"
    budgets = {"command": ["/usr/bin/notify", *command]}
    file.write_text(configuration(waldur_api_token="x", budgets=budgets))
    done = run_in_process("waldur-site-agent", "config", "check", "--show", "-c", str(file))
    assert done.code == 0, done.err
    (offering,) = yaml.safe_load(done.out[done.out.index("timezone:") :])["offerings"]
    assert offering["budgets"]["command"] == ["/usr/bin/notify", *shown]
    assert TOKEN not in done.out + done.err


def test_a_password_in_a_command_of_a_plugin_is_not_printed() -> None:
    command = f"/usr/bin/make --db-password={TOKEN} --secret '{TOKEN} x' --size 3"
    assert masked({"command": command}) == {
        "command": "/usr/bin/make --db-password=******** --secret ******** --size 3"
    }


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


PASSWORD = "pa/s?s@w%25rd#1"
WITH_PASSWORDS = [
    f"postgresql://agent:{PASSWORD}@db.example.com/agent",
    f"mysql://agent:{PASSWORD}@[::1]:3306/agent?sslmode=require",
    f"postgresql://agent:{PASSWORD}@db.example.com:99999/agent",
    f"postgresql://agent:{PASSWORD}@/agent",
    f"postgresql://:{PASSWORD}@db.example.com/agent",
    f"postgresql://agent:{PASSWORD}@db.example.com/agent?password={PASSWORD}",
    f"oracle://agent:{PASSWORD}@db.example.com/agent",
    f"agent:{PASSWORD}@db.example.com/agent",
    f"${{A{PASSWORD}}}",
]


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("url", WITH_PASSWORDS, ids=lambda url: url.replace(PASSWORD, "..."))
def test_the_password_of_a_database_is_not_printed(tmp_path: Path, url: str) -> None:
    content = yaml.safe_load(configuration(waldur_api_token="x" * 40)) | {"coordination": url}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    said = ""
    for words in (("config", "check"), ("config", "check", "--show")):
        done = run_in_process("waldur-site-agent", *words, "-c", str(file))
        said += done.out + done.err
    assert "Traceback" not in said
    for part in (PASSWORD, unquote(PASSWORD), *re.split(r"[/?@#%]", PASSWORD)):
        assert len(part) < len("25rd") or part not in said


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_neither_the_address_of_a_database_nor_its_failures_show_the_password(dialect: str) -> None:
    url = DatabaseUrl.parse(f"{dialect}://agent:{PASSWORD}@127.0.0.1:1/agent")
    assert url.password == unquote(PASSWORD)
    with pytest.raises(DatabaseError) as caught:  # nobody listens there
        open_session(url, "test")
    said = f"{url} {url!r} {caught.value} {caught.value!r}"
    assert unquote(PASSWORD) not in said
    assert PASSWORD not in said


PROXY_PASSWORD = "longer/part?beyond@sl%25ash#end0"
WITH_A_PROXY = [
    f"http://agent:{PROXY_PASSWORD}@127.0.0.1:1",
    f"agent:{PROXY_PASSWORD}@127.0.0.1:1",
    f"//agent:{PROXY_PASSWORD}@127.0.0.1:1",
    f"foo://agent:{PROXY_PASSWORD}@127.0.0.1:1",
    f"http://agent:{PROXY_PASSWORD}@127.0.0.1:port",
    f"http://agent:{PROXY_PASSWORD}@127.0.0.1:99999",
    f"http://agent:{PROXY_PASSWORD}@[::1",
    f"http:agent:{PROXY_PASSWORD}@127.0.0.1:1",
    f"socks5://agent:{PROXY_PASSWORD}@127.0.0.1:1",
]


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "proxy", WITH_A_PROXY, ids=lambda proxy: proxy.replace(PROXY_PASSWORD, "...")
)
def test_the_password_of_a_proxy_is_not_in_a_failure(
    proxy: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http", "https", "all", "no", "ws", "wss", "socks"):
        for spelt in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(spelt, raising=False)
    monkeypatch.setenv(variable, proxy)
    said = ""
    with pytest.raises((TemporaryError, PermanentError)) as caught:
        Waldur("https://waldur.invalid", TOKEN, sleep=lambda _: None).order(UUID)
    said += f"{caught.value} {caught.value!r}"
    subscription = Subscription(vhost="v", login="l", password="p", queues=("q",), declared=False)
    with pytest.raises((TemporaryError, PermanentError)) as caught:
        StompTransport(Address(host="broker.invalid", port=443, path="/ws")).connect(subscription)
    said += f"{caught.value} {caught.value!r}"
    assert [part for part in re.split(r"[/?@#]", PROXY_PASSWORD) if part in said] == []


BUDGET = Budget(
    resource=uuid.UUID(int=1),
    account="a_ocean",
    title="Ocean",
    project="climate",
    ends_on=None,
    component="cpu",
    label="CPU",
    unit="h",
    limit=Decimal(10),
    used=Decimal(8),
)


@pytest.mark.parametrize(
    "host",
    ["xn--zz--", "ex\xe4mple..x", "\u2488com", "host/" + "x" * 70_000, "host:65535/%zz"],
    ids=ascii,
)
def test_neither_a_strange_webhook_nor_a_redirect_ends_a_pass_or_shows_the_url(host: str) -> None:
    asked: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"Location": f"https://evil.example/{TOKEN}"})

    settings = Budgets(
        webhook=SecretStr(f"https://{host}/{TOKEN}"), webhook_token=SecretStr(f"{TOKEN}\xe9")
    )
    for chosen in (settings, settings.model_copy(update={"webhook_token": SecretStr(TOKEN)})):
        channels = Channels("HPC", chosen, transport=httpx.MockTransport(respond))
        with pytest.raises(TemporaryError) as caught:
            channels.tell(BudgetNotice(BUDGET, 80), [])
        assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert "evil.example" not in asked
