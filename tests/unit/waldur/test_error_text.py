from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.waldur.body import shorten
from waldur_site_agent.waldur.errors import error_text, flatten

WORDS = st.text(st.characters(categories=["Ll", "Nd"]), min_size=1, max_size=8)
BODIES = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"detail": "Not found."}', "Not found."),
        ('{"backend_id": ["Too long.", "Taken."]}', "backend_id: Too long. Taken."),
        ('{"non_field_errors": ["Same limits."]}', "Same limits."),
        ('{"limits": {"cpu": ["Too many."]}}', "limits.cpu: Too many."),
        ('{"limits": {"non_field_errors": ["Empty."]}}', "limits: Empty."),
        (
            '["Pending order for resource already exists."]',
            "Pending order for resource already exists.",
        ),
        ('"Order has been approved."', "Order has been approved."),
        ('[{}, {"type": ["Unknown."]}]', "2.type: Unknown."),
        ('{"a": ["One."], "b": "Two.", "c": null}', "a: One.; b: Two."),
        (
            "<html><head><title>Server Error (500)</title></head><body>x</body></html>",
            "Server Error (500)",
        ),
        ("<h1>Not Found</h1><p>Gone &amp; away</p>", "Not Found Gone & away"),
        ("<style>p {}</style><p>Down</p><script>alert()</script>", "Down"),
        ("upstream connect error", "upstream connect error"),
        ("two\nlines\x1b[31m", "two lines [31m"),
        ("", ""),
        ("null", ""),
        ("{}", ""),
        ("42", "42"),
    ],
)
def test_every_shape_of_error_body_becomes_one_sentence(body: str, expected: str) -> None:
    assert expected == error_text(httpx.Response(400, content=body.encode()))


def test_bytes_that_are_no_text_do_not_get_in_the_way() -> None:
    words = error_text(httpx.Response(500, content=b"\xff\xfe\x00broken"))
    assert "broken" in words


def test_deep_nesting_does_not_get_in_the_way() -> None:
    body = b"[" * 100_000
    assert len(error_text(httpx.Response(400, content=body))) <= 300


def leaves(body: object) -> list[str]:
    if isinstance(body, dict):
        return [leaf for value in body.values() for leaf in leaves(value)]
    if isinstance(body, list):
        return [leaf for value in body for leaf in leaves(value)]
    return [str(body)]


@given(BODIES)
def test_no_word_of_the_server_is_lost(body: object) -> None:
    sentence = "; ".join(flatten(body))
    for leaf in leaves(body):
        assert leaf in sentence


@given(st.text())
def test_a_shortened_text_is_one_printable_line(text: str) -> None:
    line = shorten(text, 40)
    assert len(line) <= 40
    assert line == " ".join(line.split())
    assert line.isprintable()
