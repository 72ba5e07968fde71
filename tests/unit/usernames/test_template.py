"""The names that the template backend makes."""

from __future__ import annotations

import os
import pwd
import re
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from waldur_site_agent.backends import PermanentError
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent.planning.usernames import why_unfit
from waldur_site_agent_basic_username_management.settings import (
    FIELDS,
    TemplateSettings,
    parse_pattern,
)
from waldur_site_agent_basic_username_management.template import RESERVED, TemplateUsernameBackend

SPACE = UUID(int=0)


def backend(
    pattern: str = "{first_name[0]}{last_name}", system: frozenset[str] = frozenset(), **more: Any
) -> TemplateUsernameBackend:
    settings = TemplateSettings.model_validate({"pattern": pattern} | more)
    return TemplateUsernameBackend(settings, known_to_system=lambda name: name in system)


def person(first: str = "Ada", last: str = "Lovelace", **more: Any) -> OfferingUser:
    values: dict[str, Any] = {
        "uuid": uuid5(SPACE, f"{first} {last} {more}"),
        "user_uuid": uuid5(SPACE, f"person {first} {last} {more}"),
        "state": "Requested",
        "user_username": "ada@idp",
        "user_first_name": first,
        "user_last_name": last,
        "user_full_name": f"{first} {last}",
        "user_email": "ada.l+hpc@uni.example",
    }
    return OfferingUser(**values | more)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{first_name[0]}{last_name}", "alovelace"),
        ("{last_name[:3]}{first_name[:2]}", "lovad"),
        ("{last_name[-4:]}", "lace"),
        ("{first_name[-1]}{last_name[1:3]}", "aov"),
        ("{first_name}.{last_name}", "ada.lovelace"),
        ("{full_name}", "adalovelace"),
        ("{email_local}", "ada.l"),
        ("{waldur_username}", "adaidp"),
        ("hpc-{last_name}", "hpc-lovelace"),
        ("{first_name[:90]}", "ada"),
    ],
)
def test_a_pattern_is_filled(pattern: str, name: str) -> None:
    assert backend(pattern).generate_username(person()) == name


@pytest.mark.parametrize(
    ("first", "last", "name"),
    [
        ("Jürgen", "Groß", "jgross"),
        ("Søren", "Ærøskøbing", "saeroskobing"),
        ("Łukasz", "Żółć", "lzolc"),
        ("Ілля", "Шевченко", "ishevchenko"),
        ("小明", "王", "xwang"),
        ("Ωμέγα", "Παπαδόπουλος", "opapadopoylos"),
        ("Anne-Marie", "O'Neill", "aoneill"),
        ("Ma\u0301ria", "van der Berg", "mvanderberg"),
        ("ADA", "LOVELACE", "alovelace"),
        ("Åsa", "Öberg", "aoberg"),
    ],
)
def test_every_script_becomes_ascii(first: str, last: str, name: str) -> None:
    assert backend().generate_username(person(first, last)) == name


def test_a_site_may_spell_letters_its_own_way() -> None:
    made = backend(substitutions={"ü": "ue", "Ö": "oe"})
    assert made.generate_username(person("Ada", "Müller-Ödön")) == "amuelleroedoen"
    assert made.generate_username(person("Ada", "MU\u0308LLER")) == "amueller"
    decomposed = backend(substitutions={"u\u0308": "ue"})
    assert decomposed.generate_username(person("Ada", "Müller")) == "amueller"


def test_people_with_the_same_name_are_numbered() -> None:
    made = backend()
    names = [made.generate_username(person(user_uuid=UUID(int=n))) for n in range(1, 5)]
    assert names == ["alovelace", "alovelace2", "alovelace3", "alovelace4"]


def test_names_in_waldur_are_taken() -> None:
    made = backend()
    made.names_held({"alovelace": frozenset({UUID(int=1)}), "alovelace2": frozenset({SPACE})})
    assert made.generate_username(person()) == "alovelace3"


def test_ones_own_name_is_not_taken() -> None:
    made, ada = backend(), person()
    made.names_held({"alovelace": frozenset({ada.user_uuid})})
    assert made.generate_username(ada) == "alovelace"


def test_a_name_in_waldur_stays() -> None:
    made, ada = backend(), person(username="countess")
    made.names_held({"countess": frozenset({ada.user_uuid})})
    assert made.get_username(ada) == "countess"


def test_a_name_in_waldur_that_somebody_else_has_too_is_replaced() -> None:
    made, ada = backend(), person(username="Countess")
    made.names_held({"countess": frozenset({ada.user_uuid, UUID(int=1)})})
    assert made.get_username(ada) is None
    assert made.generate_username(ada) == "alovelace"


def test_nobody_without_a_name_in_waldur_has_one() -> None:
    assert backend().get_username(person()) is None


def test_a_new_cycle_forgets_what_was_not_written() -> None:
    made = backend()
    assert made.generate_username(person(user_uuid=UUID(int=1))) == "alovelace"
    made.names_held({})
    assert made.generate_username(person(user_uuid=UUID(int=2))) == "alovelace"


def test_users_of_the_system_are_avoided() -> None:
    assert backend(system=frozenset({"alovelace"})).generate_username(person()) == "alovelace2"


def test_users_of_the_system_may_be_ignored() -> None:
    made = backend(system=frozenset({"alovelace"}), avoid_system_users=False)
    assert made.generate_username(person()) == "alovelace"


def test_the_system_is_really_asked() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    settings = TemplateSettings(pattern="{last_name}")
    made = TemplateUsernameBackend(settings)
    assert made.generate_username(person("Ada", me)) == f"{me}2"


@pytest.mark.parametrize("name", ["root", "Daemon", "slurm", "nobody", "admin"])
def test_reserved_names_are_numbered(name: str) -> None:
    assert backend("{last_name}").generate_username(person("Ada", name)) == f"{name.lower()}2"


def test_a_site_reserves_names_of_its_own() -> None:
    made = backend("{last_name}", reserved_names=["Turing"])
    assert made.generate_username(person("Alan", "Turing")) == "turing2"


def test_a_name_is_cut_and_its_number_fits() -> None:
    made = backend("{first_name}.{last_name}", max_length=4)
    names = [made.generate_username(person(user_uuid=UUID(int=n))) for n in range(1, 11)]
    assert names[:3] == ["ada", "ada2", "ada3"]
    assert names[-1] == "ad10"


def test_numbers_come_to_an_end_with_a_remedy() -> None:
    made = backend("{last_name[0]}", max_length=4)
    made.names_held({f"l{n or ''}": frozenset({SPACE}) for n in [0, *range(2, 10_000)]})
    with pytest.raises(PermanentError, match="raise max_length"):
        made.generate_username(person())


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_attribute_is_named_with_the_person(field: str) -> None:
    bare = OfferingUser(uuid=UUID(int=1), user_uuid=UUID(int=2))
    with pytest.raises(PermanentError, match=rf"{bare.user_uuid}.* shows no {field},"):
        backend(f"{{{field}}}").generate_username(bare)


@pytest.mark.parametrize(("first", "last"), [("'", "Lovelace"), ("7", "1234"), ("Ada", "—")])
def test_a_name_without_usable_letters_is_refused(first: str, last: str) -> None:
    with pytest.raises(PermanentError, match='user "ada@idp"'):
        backend().generate_username(person(first, last))


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("", "has no field"),
        ("everybody", "has no field"),
        ("{middle_name}", 'no field "middle_name"; known: first_name'),
        ("{first_name", "not understood from"),
        ("{first_name.__class__}", "not understood from"),
        ("{first_name!r}", "not understood from"),
        ("{first_name:>10}", "not understood from"),
        ("{first_name[0][0]}", "not understood from"),
        ("{first_name[]}", "not understood from"),
        ("{first_name[a]}", "not understood from"),
        ("{}{last_name}", "not understood from"),
        ("{0}{last_name}", "not understood from"),
        ("{last_name} x", "not understood from"),
        ("X{last_name}", "not understood from"),
        ("{last_name}\n", "not understood from"),
    ],
)
def test_a_wrong_pattern_is_refused_at_start(pattern: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    "more",
    [
        {"max_length": 3},
        {"max_length": 101},
        {"substitutions": {"ue": "u"}},
        {"substitutions": {"ü": "ü"}},
        {"unknown": 1},
    ],
)
def test_wrong_settings_are_refused_at_start(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TemplateSettings.model_validate({"pattern": "{last_name}"} | more)


def test_what_stands_in_a_name_is_never_a_pattern() -> None:
    assert backend("{last_name}").generate_username(person("A", "{first_name}%s{0}")) == (
        "firstnames0"
    )


patterns = st.lists(
    st.one_of(
        st.sampled_from(FIELDS).map(lambda field: f"{{{field}}}"),
        st.tuples(st.sampled_from(FIELDS), st.integers(-9, 9)).map(lambda t: f"{{{t[0]}[{t[1]}]}}"),
        st.tuples(st.sampled_from(FIELDS), st.integers(0, 9)).map(lambda t: f"{{{t[0]}[:{t[1]}]}}"),
        st.sampled_from([".", "-", "_", "x", "9"]),
    ),
    min_size=1,
    max_size=4,
).map("".join)
attributes = st.one_of(st.text(max_size=20), st.sampled_from(["root", "Daemon", "Ada", "test"]))
taken_names = st.frozensets(st.sampled_from(["ada", "ada2", "root2", "daemon2", "x", "a", "test2"]))


@given(
    pattern=patterns.filter(lambda text: "{" in text),
    max_length=st.integers(4, 40),
    first=attributes,
    last=attributes,
    taken=taken_names,
    system=taken_names,
)
def test_every_name_is_fit_free_and_always_the_same(
    pattern: str,
    max_length: int,
    first: str,
    last: str,
    taken: frozenset[str],
    system: frozenset[str],
) -> None:
    def made() -> list[str]:
        """The names of three namesakes, each asked about twice; empty when they get none."""
        names = backend(pattern, system, max_length=max_length)
        names.names_held({name: frozenset({SPACE}) for name in taken})
        people = [person(first, last, user_uuid=UUID(int=n)) for n in (1, 2, 3)]
        with suppress(PermanentError):
            first_time = [names.generate_username(each) for each in people]
            assert [names.generate_username(each) for each in people] == first_time
            return first_time
        return []

    names = made()
    assert made() == names
    assert len(set(names)) == len(names)
    for name in names:
        assert why_unfit(name, found=False) == ""
        assert len(name) <= max_length
        assert not {name} & (RESERVED | taken | system)


@given(first=st.text(min_size=1, max_size=30), last=st.text(min_size=1, max_size=30))
def test_whatever_people_are_called_they_get_a_name_or_a_reason(first: str, last: str) -> None:
    words = ""
    try:
        name = backend("{first_name}{last_name}").generate_username(person(first, last))
    except PermanentError as error:
        words, name = str(error), "none"
    assert why_unfit(name, found=False) == ""
    assert not words or words.startswith('user "ada@idp": ')
