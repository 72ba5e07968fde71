from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.waldur import ApiAddress
from waldur_site_agent.waldur.address import Redirect

LABELS = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PREFIXES = st.lists(LABELS.filter(lambda step: step != "api"), max_size=3)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("https://waldur.csc.fi", "https://waldur.csc.fi/api/"),
        ("https://waldur.csc.fi/", "https://waldur.csc.fi/api/"),
        ("https://waldur.csc.fi/api", "https://waldur.csc.fi/api/"),
        ("https://waldur.csc.fi/api/", "https://waldur.csc.fi/api/"),
        ("  https://waldur.csc.fi//api//\n", "https://waldur.csc.fi/api/"),
        ("https://hpc.api/api/", "https://hpc.api/api/"),
        ("https://hpc.api", "https://hpc.api/api/"),
        ("https://api.example.com:8443/waldur/api/", "https://api.example.com:8443/waldur/api/"),
        ("https://example.com/papi", "https://example.com/papi/api/"),
        ("HTTP://Localhost:8000/api/", "http://localhost:8000/api/"),
        ("https://example.com:443/api/", "https://example.com/api/"),
        ("http://[::1]:8000/api/", "http://[::1]:8000/api/"),
    ],
)
def test_an_api_url_is_understood_however_it_is_written(written: str, expected: str) -> None:
    assert expected == ApiAddress.parse(written).url


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "does not start with https://"),
        ("waldur.example.com", "does not start with https://"),
        ("ftp://waldur.example.com/api/", "does not start with https://"),
        ("https:///api/", "has no host"),
        ("https://", "has no host"),
        ("https://exa mple.com/api/", "is not a host name"),
        ("https://example.com\\@evil.example/api/", "user name"),
        ("https://example.com:port/api/", "Port"),
        ("https://example.com:99999/api/", "Port"),
        ("https://[::1/api/", "Invalid IPv6"),
        ("https://me:secret@example.com/api/", "user name or password"),
        ("https://example.com/api/?token=secret", "query"),
        ("https://example.com/api/#orders", "fragment"),
    ],
)
def test_nonsense_is_refused_with_the_reason_and_an_example(written: str, why: str) -> None:
    with pytest.raises(PermanentError) as caught:
        ApiAddress.parse(written)
    assert why in str(caught.value)
    assert "https://waldur.example.com/api/" in str(caught.value)
    assert "secret" not in str(caught.value)


@given(
    HOSTS, PREFIXES, st.sampled_from(["", "/", "/api", "/api/"]), st.sampled_from(["http", "https"])
)
def test_every_spelling_leads_to_the_same_api(
    host: str, prefix: list[str], ending: str, scheme: str
) -> None:
    root = "/".join([f"{scheme}://{host}", *prefix])
    address = ApiAddress.parse(root + ending)
    assert f"{root}/api/" == address.url
    assert address == ApiAddress.parse(address.url)
    assert f"{root}/api/users/me/" == address.join("users/me/") == address.join("/users/me/")


@given(st.text() | st.text().map(lambda text: f"https://{text}"))
def test_any_text_is_an_address_or_a_clear_refusal(text: str) -> None:
    refusal = ""
    address = None
    try:
        address = ApiAddress.parse(text)
    except PermanentError as error:
        refusal = str(error)
    assert address is not None or "waldur_api_url" in refusal
    assert address is None or address == ApiAddress.parse(address.url)


@pytest.mark.parametrize(
    ("source", "location", "home"),
    [
        ("http://h.example/api/users/me/", "https://h.example/api/users/me/", True),
        ("http://h.example/api/x", "/api/x/", True),
        ("https://h.example/api/x", "https://h.example:443/api/x/", True),
        ("https://h.example/api/x/", "https://H.EXAMPLE/api/x/", True),
        ("https://h.example/api/x/", "http://h.example/api/x/", False),
        ("https://h.example/api/x/", "https://other.example/api/x/", False),
        ("https://h.example/api/x/", "//other.example/api/x/", False),
        ("https://h.example/api/x/", "https://h.example.evil/api/x/", False),
        ("https://h.example/api/x/", "https://h.example@evil.example/", False),
        ("https://h.example/api/x/", "https://me@h.example/", False),
        ("https://h.example/api/x/", "https://h.example:8443/api/x/", False),
        ("https://h.example/api/x/", "https://[oops", False),
    ],
)
def test_the_token_stays_with_its_host(source: str, location: str, *, home: bool) -> None:
    assert home is Redirect.read(source, location).stays_on_host
