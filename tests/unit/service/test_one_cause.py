"""A diagnosis says each cause once, with its remedy behind an arrow."""

from __future__ import annotations

from harness import Installation
from waldur_site_agent.backends import (
    Check,
    CheckStatus,
    Look,
    PermanentError,
    TemporaryError,
    make_checks,
)


class GoneError(TemporaryError):
    pass


def fine(name: str) -> list[Check]:
    return [Check(name=name, verdict=CheckStatus.OK)]


def gone(_name: str = "") -> list[Check]:
    raise GoneError("the database is away", remedy="start it")


def test_what_needs_something_that_does_not_answer_is_named_and_not_tried() -> None:
    tried: list[str] = []

    def recorded(name: str) -> list[Check]:
        tried.append(name)
        return fine(name)

    looks = (
        Look("first", lambda: gone("first"), "database"),
        Look("second", lambda: recorded("second"), "database"),
        Look("third", lambda: recorded("third"), "controller"),
        Look("fourth", lambda: recorded("fourth"), "database"),
        Look("fifth", lambda: recorded("fifth")),
    )
    lost, third, fifth = make_checks(looks, (GoneError,))
    assert (lost.verdict, lost.remedy) == (CheckStatus.FAILED, "start it")
    assert lost.detail == "the database is away; not checked: second, fourth"
    assert (third.name, fifth.name) == ("third", "fifth")
    assert tried == ["third", "fifth"]


def test_a_check_that_fails_by_itself_stops_no_other() -> None:
    def wrong() -> list[Check]:
        raise PermanentError("no such QOS", remedy="make it")

    looks = (Look("a", wrong, "database"), Look("b", lambda: fine("b"), "database"))
    first, second = make_checks(looks, (GoneError,))
    assert (first.detail, first.remedy, second.verdict) == (
        "no such QOS",
        "make it",
        CheckStatus.OK,
    )


def test_a_waldur_that_is_away_is_one_line_with_its_remedy(installation: Installation) -> None:
    installation.write(waldur_api_url="http://127.0.0.1:1/api/")
    done = installation.run(command="waldur_site_diagnostics")
    lines = done.out.splitlines()
    (number,) = (n for n, line in enumerate(lines) if "FAILED" in line)
    assert "cannot be reached" in lines[number]
    assert "the checks that follow were skipped" in lines[number]
    assert "check the network and waldur_api_url" in lines[number + 1]
