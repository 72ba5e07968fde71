"""Logging in as a client of an identity provider, which is a real one, as is the server behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from waldur_site_agent.model.errors import SiteAgentError, TemporaryError
from waldur_site_agent.waldur import AccessTokens, Client, RetryPolicy, TokenRefusedError, Waldur
from waldur_site_agent_sandbox import Sandbox
from waldur_site_agent_sandbox.identity_provider import (
    INTROSPECTION_PATH,
    TOKEN_PATH,
    IdentityProvider,
    redirect,
    unavailable,
)

SECRET = "5f1b-not-to-be-seen"


@dataclass
class Place:
    """A Waldur that trusts an identity provider, and the time that both go by."""

    sandbox: Sandbox
    provider: IdentityProvider
    address: str
    waldur_url: str
    seconds: list[float]
    told: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def pass_(self, seconds: float) -> None:
        self.seconds[0] += seconds

    def login(self, secret: str = SECRET, **changes: Any) -> AccessTokens:
        client = Client(token_url=f"{self.address}{TOKEN_PATH}", id="agent-1", secret=secret)
        options = {"clock": lambda: self.seconds[0], "on_token": self.told.append, **changes}
        return AccessTokens(client, **options)

    def waldur(self, login: AccessTokens) -> Waldur:
        retry = RetryPolicy(attempts=3, jitter=lambda ceiling: ceiling)
        return Waldur(self.waldur_url, login, retry=retry, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.pass_(seconds)


@pytest.fixture
def place() -> Iterator[Place]:
    seconds = [1000.0]
    sandbox, provider = Sandbox("8.1.3"), IdentityProvider(clock=lambda: seconds[0])
    provider.add_client("agent-1", SECRET, sandbox.agent.username)
    provider.add_client("waldur", "waldurs-own", "")
    with provider.serve() as address, sandbox.serve() as url:
        sandbox.trust(f"{address}{INTROSPECTION_PATH}", "waldur", "waldurs-own")
        yield Place(sandbox, provider, address, url, seconds)


def failure(place: Place, login: AccessTokens) -> SiteAgentError:
    with pytest.raises(SiteAgentError) as caught, place.waldur(login) as waldur:
        waldur.whoami()
    assert SECRET not in str(caught.value)
    assert not any(token in str(caught.value) for token in place.provider.tokens)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_agent_is_the_user_of_its_client(place: Place) -> None:
    with place.waldur(place.login()) as waldur:
        assert waldur.whoami().username == place.sandbox.agent.username


def test_one_token_serves_until_half_a_minute_before_its_end(place: Place) -> None:
    with place.waldur(place.login()) as waldur:
        for _ in range(10):
            waldur.whoami()
        place.pass_(269)
        waldur.whoami()
        assert place.provider.granted == 1
        place.pass_(2)
        waldur.whoami()
    assert place.provider.granted == 2
    assert place.sandbox.requests.writes() == []
    assert {entry.status for entry in place.sandbox.requests} == {200}


def test_connections_and_threads_share_a_token(place: Place) -> None:
    login = place.login()
    with place.waldur(login) as one, place.waldur(login) as two, ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda waldur: waldur.whoami(), [one, two] * 8):
            assert found.username == place.sandbox.agent.username
    assert place.provider.granted == 1


@pytest.mark.parametrize(("lifetime", "wait"), [(20, 11), (1, 0.6)])
def test_a_token_that_lives_shortly_is_used_for_half_its_life(
    place: Place, lifetime: float, wait: float
) -> None:
    place.provider.lifetime, place.provider.tells_lifetime = lifetime, float
    with place.waldur(place.login()) as waldur:
        waldur.whoami()
        waldur.whoami()
        assert place.provider.granted == 1
        place.pass_(wait)
        waldur.whoami()
    assert place.provider.granted == 2


@pytest.mark.parametrize("told", [None, "soon", -1, 0, "nan", 1e400, True, [], {}])
def test_a_lifetime_that_the_provider_does_not_say_is_five_minutes(
    place: Place, told: object
) -> None:
    place.provider.lifetime = 3600
    place.provider.trouble = _raw({"access_token": "abc", "expires_in": told})
    assert place.login().seconds_left() == 300


def _raw(body: object) -> Response:
    return Response(json.dumps(body), media_type="application/json")


def test_a_lifetime_as_text_counts(place: Place) -> None:
    place.provider.tells_lifetime = str
    place.provider.lifetime = 120
    assert place.login().seconds_left() == 120


def test_a_token_that_waldur_refuses_is_replaced_once_and_nothing_is_lost(place: Place) -> None:
    with place.waldur(place.login()) as waldur:
        waldur.whoami()
        place.provider.revoke_all()
        assert waldur.whoami().username == place.sandbox.agent.username
    assert place.provider.granted == 2
    assert [entry.status for entry in place.sandbox.requests] == [200, 401, 200]


def test_threads_that_meet_a_refused_token_fetch_one_together(place: Place) -> None:
    login = place.login()
    with place.waldur(login) as waldur, ThreadPoolExecutor(8) as pool:
        waldur.whoami()
        place.provider.revoke_all()
        list(pool.map(lambda _: waldur.whoami(), range(8)))
    assert place.provider.granted == 2


def test_a_write_that_is_refused_for_its_token_is_sent_again(place: Place) -> None:
    with place.waldur(place.login()) as waldur:
        waldur.whoami()
        place.provider.revoke_all()
        waldur.create_identity(place.sandbox.offering.uuid, "agent", "1")
        assert len(waldur.identities(place.sandbox.offering.uuid, "agent").items) == 1


def test_a_server_that_does_not_trust_the_provider_is_named_after_one_more_try(
    place: Place,
) -> None:
    place.sandbox.trust(f"{place.address}nowhere", "waldur", "waldurs-own")
    error = failure(place, place.login())
    assert isinstance(error, TokenRefusedError)
    assert "answered HTTP 401" in str(error)
    assert "Waldur must trust this identity provider" in str(error)
    assert place.provider.granted == 2
    assert len(place.sandbox.requests) == 2


def test_a_wrong_secret_is_named_and_not_shown(place: Place) -> None:
    place.provider.add_client("agent-1", "another", "agent")
    error = failure(place, place.login())
    assert isinstance(error, TokenRefusedError)
    assert "cannot get an access token: 127.0.0.1:" in str(error)
    assert "answered HTTP 401" in str(error)
    assert "Invalid client credentials" in str(error)
    assert "check oidc_client_id and oidc_client_secret" in str(error)
    assert len(place.provider.requests) == 1
    assert len(place.sandbox.requests) == 0


def test_a_provider_that_repeats_the_secret_does_not_get_it_into_the_message(place: Place) -> None:
    place.provider.trouble = JSONResponse({"error": f"no such secret: {SECRET}"}, 400)
    assert "no such secret: ***" in str(failure(place, place.login()))


def test_a_provider_that_is_away_is_temporary_and_asked_again(place: Place) -> None:
    place.provider.trouble = unavailable()
    login = place.login()
    error = failure(place, login)
    assert type(error) is TemporaryError
    assert "answered HTTP 503" in str(error)
    assert "restarting" in str(error)
    assert len(place.sandbox.requests) == 0
    place.provider.trouble = None
    place.pass_(2)
    with place.waldur(login) as waldur:
        assert waldur.whoami().username == place.sandbox.agent.username


def test_a_provider_that_comes_back_between_two_attempts_is_not_noticed(place: Place) -> None:
    class Once(list[float]):
        def append(self, seconds: float) -> None:
            place.provider.trouble = None
            super().append(seconds)

    place.waits = Once()
    place.provider.trouble = unavailable()
    login = place.login()
    place.pass_(0)
    retry = RetryPolicy(attempts=3, first_wait=2, jitter=lambda ceiling: ceiling)
    with Waldur(place.waldur_url, login, retry=retry, sleep=place._sleep) as waldur:
        assert waldur.whoami().username == place.sandbox.agent.username
    assert place.waits == [2]


def test_a_token_is_used_to_its_end_while_the_provider_is_away(place: Place) -> None:
    with place.waldur(place.login()) as waldur:
        waldur.whoami()
        place.provider.trouble = unavailable()
        place.pass_(290)
        assert waldur.whoami().username == place.sandbox.agent.username
        place.pass_(11)
        with pytest.raises(TemporaryError, match="cannot get an access token"):
            waldur.whoami()


def test_many_threads_do_not_storm_a_provider_that_is_away(place: Place) -> None:
    place.provider.trouble = unavailable()
    login = place.login()

    def ask(_: int) -> str:
        try:
            return login.header()
        except TemporaryError as error:
            return error.problem

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(40)))) == 1
    assert len(place.provider.requests) == 1


def test_nobody_at_the_address_is_temporary_and_names_the_key(place: Place) -> None:
    client = Client(token_url="http://127.0.0.1:9/token", id="agent-1", secret=SECRET)
    error = failure(place, AccessTokens(client))
    assert type(error) is TemporaryError
    assert "127.0.0.1:9 cannot be reached" in str(error)
    assert "check the network and oidc_token_url" in str(error)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HTMLResponse("<title>Log in</title>"), "has no access_token; check oidc_token_url"),
        (HTMLResponse("<title>Gone</title>", 404), 'HTTP 404: "Gone"; check oidc_token_url'),
        (JSONResponse({"token": "x"}), "has no access_token"),
        (JSONResponse({"access_token": "a b"}), "has no access_token"),
        (JSONResponse({"access_token": ["x"]}), "has no access_token"),
        (JSONResponse([1]), "has no access_token"),
        (Response("x" * 300_000), "has no access_token"),
        (Response("[" * 100_000), "has no access_token"),
        (JSONResponse({"detail": "slow down"}, 429), "slow down"),
        (redirect("https://other.example.com/token?key=x"), "https://other.example.com/token, w"),
    ],
    ids=["page", "404", "no token", "space", "list", "array", "long", "deep", "429", "redirect"],
)
def test_an_answer_without_a_token_says_what_to_check(
    place: Place, answer: Response, words: str
) -> None:
    place.provider.trouble = answer
    error = failure(place, place.login())
    assert isinstance(error, TemporaryError)
    assert words in str(error)


def test_every_token_is_announced_and_none_is_in_a_repr(place: Place) -> None:
    login = place.login()
    with place.waldur(login) as waldur:
        waldur.whoami()
        place.pass_(280)
        waldur.whoami()
        shown = repr((waldur, login, vars(login)))
    assert place.told == place.provider.tokens
    assert len(place.told) == 2
    assert not any(secret in shown for secret in (SECRET, *place.told))
