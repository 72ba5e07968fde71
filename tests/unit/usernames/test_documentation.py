"""What docs/usernames.md shows works."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
import yaml

from unit.usernames.people import Place
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent_basic_username_management.settings import FIELDS, TemplateSettings
from waldur_site_agent_basic_username_management.template import TemplateUsernameBackend

PAGE = (Path(__file__).parents[3] / "docs" / "usernames.md").read_text(encoding="utf-8")
ADA = OfferingUser(
    uuid=UUID(int=1),
    user_uuid=UUID(int=2),
    user_first_name="Ada",
    user_last_name="Lovelace",
    user_full_name="Ada Lovelace",
    user_email="ada.l@example.com",
)


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_settings_that_are_shown_are_taken() -> None:
    shown = yaml.safe_load(block("yaml"))["username_management_settings"]
    backend = TemplateUsernameBackend(TemplateSettings.model_validate(shown), lambda _name: False)
    assert backend.generate_username(ADA) == "alovelace"


def test_every_setting_is_described_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+)", PAGE, re.MULTILINE))
    for key, field in TemplateSettings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "required" if field.is_required() else str(default).lower() if default else "none"
        assert rows[key] == shown


def test_every_field_is_described() -> None:
    assert all(f"`{field}`" in PAGE for field in FIELDS)


@pytest.mark.parametrize(
    ("pattern", "name"), re.findall(r"^\| `(\S*\{\S+)` \| `(\S+)` \|$", PAGE, re.MULTILINE)
)
def test_every_pattern_gives_the_name_that_is_shown(pattern: str, name: str) -> None:
    backend = TemplateUsernameBackend(TemplateSettings(pattern=pattern), lambda _name: False)
    assert backend.generate_username(ADA) == name


def test_the_plugin_that_is_shown_works(new_place: Place) -> None:
    module: Any = ModuleType("documented_usernames")
    exec(compile(block("python"), "docs/usernames.md", "exec"), module.__dict__)  # noqa: S102 - our own page
    settings = module.DirectorySettings(portal="https://portal.example.com/")
    new_place.backend = module.DirectoryUsernames(settings)
    side = new_place.sandbox.customer
    for name in ("ada", "bob"):
        person = side.add_user(name, email=f"{name}@example.com")
        side.set_account(person, "", "Requested")
    assert not new_place.cycle().failed
    assert new_place.shown("ada") == ("OK", "ada01")
    assert new_place.shown("bob") == ("Pending account linking", "")
    assert new_place.account("bob").service_provider_comment_url == "https://portal.example.com/"
