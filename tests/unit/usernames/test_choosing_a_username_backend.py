"""Which username backend an offering gets, and what an administrator reads when it is wrong."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from waldur_site_agent.backends import NoUsernames, UsernameBackend
from waldur_site_agent.backends import plugins as plugins_module
from waldur_site_agent.backends.plugins import (
    PluginError,
    UsernameRegistry,
    installed_username_plugins,
    username_backend_problems,
)
from waldur_site_agent.config import (
    Configuration,
    ConfigurationError,
    Source,
    load_configuration,
    resolved_yaml,
)
from waldur_site_agent_basic_username_management.settings import TemplateSettings
from waldur_site_agent_basic_username_management.template import (
    BaseUsernameBackend,
    TemplateUsernameBackend,
)


def loaded(tmp_path: Path, *entries: dict[str, Any]) -> tuple[Configuration, Source]:
    offerings = [
        {
            "name": f"Cluster {number}",
            "waldur_api_url": "https://waldur.example.com/api/",
            "waldur_api_token": "secret-token",
            "waldur_offering_uuid": f"0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b{number}",
            **entry,
        }
        for number, entry in enumerate(entries)
    ]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"offerings": offerings}, allow_unicode=True, sort_keys=False))
    return load_configuration(path, {})


def complaint(tmp_path: Path, *entries: dict[str, Any]) -> str:
    configuration, source = loaded(tmp_path, *entries)
    problems = [
        problem
        for offering in configuration.offerings
        for problem in username_backend_problems(UsernameRegistry(), offering, source)
    ]
    return str(ConfigurationError(source.path, problems)).replace(str(tmp_path), "DIR")


TEMPLATE = {"username_management_backend": "template"}


def test_an_offering_that_says_nothing_gets_base(tmp_path: Path) -> None:
    configuration, source = loaded(tmp_path, {})
    backend = UsernameRegistry().open(configuration.offerings[0], source)
    assert isinstance(backend, BaseUsernameBackend)


def test_template_is_opened_with_its_settings(tmp_path: Path) -> None:
    settings = {
        "pattern": "{last_name}",
        "max_length": 12,
        "avoid_system_users": False,
        "reserved_names": ["boss"],
        "substitutions": {"ü": "ue"},
    }
    entry = TEMPLATE | {"username_management_settings": settings}
    configuration, source = loaded(tmp_path, entry)
    backend = UsernameRegistry().open(configuration.offerings[0], source)
    assert isinstance(backend, TemplateUsernameBackend)
    assert backend.settings == TemplateSettings.model_validate(settings)
    assert "pattern: '{last_name}'" in resolved_yaml(configuration)


def test_all_wrong_settings_are_told_with_their_lines(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [
        TEMPLATE | {"username_management_settings": {"pattern": "{middle}", "max_lenght": 5}},
        TEMPLATE,
        {"username_management_settings": {"pattern": "{last_name}"}},
    ]
    pattern, unknown, missing, needless = complaint(tmp_path, *entries).splitlines()
    place = "username_management_settings"
    assert pattern == (
        f'DIR/config.yaml:8: offerings[0].{place}.pattern: found "{{middle}}"; there is no field '
        '"middle"; known: first_name, last_name, full_name, email_local, waldur_username'
    )
    assert unknown == (
        f"DIR/config.yaml:9: offerings[0].{place}.max_lenght: unknown key; "
        'did you mean "max_length"?'
    )
    assert missing == (
        f"DIR/config.yaml:10: offerings[1].{place}.pattern: is missing; it is required here"
    )
    assert needless.startswith(f"DIR/config.yaml:20: offerings[2].{place}.pattern: unknown key")


def test_a_backend_that_is_not_installed_is_named_with_its_place(tmp_path: Path) -> None:
    assert complaint(tmp_path, {"username_management_backend": "ldap"}) == (
        "DIR/config.yaml:6: offerings[0].username_management_backend: "
        'no username backend "ldap" is installed; installed: base, template; '
        f"a plugin that provides it must be installed into {sys.prefix}"
    )


def test_a_misspelt_name_gets_the_nearest_that_is_installed(tmp_path: Path) -> None:
    assert complaint(tmp_path, {"username_management_backend": "templat"}).endswith(
        'no username backend "templat" is installed; did you mean "template"? '
        "installed: base, template"
    )


def test_both_backends_come_with_their_distribution() -> None:
    found = {name: plugin.distribution for name, plugin in installed_username_plugins().items()}
    assert found == dict.fromkeys(
        ["base", "template"], "waldur-site-agent-basic-username-management"
    )


def test_a_plugin_that_is_installed_while_the_agent_runs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "campus" not in UsernameRegistry().names()
    distribution = tmp_path / "campus-1.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: campus\nVersion: 1\n")
    group = "waldur_site_agent.username_management_backends"
    (distribution / "entry_points.txt").write_text(f"[{group}]\ncampus = campus:Backend\n")
    os.utime(tmp_path, (1, 1))  # within a tick of the clock the time would be the same
    assert "campus" in UsernameRegistry().names()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that there are."""
    entries: list[EntryPoint] = []

    def entry_points(group: str) -> list[EntryPoint]:
        return [entry for entry in entries if entry.group == group]

    monkeypatch.setattr(plugins_module, "entry_points", entry_points)
    return entries


def test_base_works_without_any_plugin(installed: list[EntryPoint]) -> None:
    registry = UsernameRegistry()
    assert installed == []
    assert registry.backend_class("base") is NoUsernames
    assert registry.names() == ["base"]


def test_a_missing_template_says_what_to_install(installed: list[EntryPoint]) -> None:
    assert installed == []
    with pytest.raises(PluginError, match=r"waldur-site-agent-basic-username-management from"):
        UsernameRegistry().backend_class("template")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module_anywhere:X", "cannot be loaded: ModuleNotFoundError"),
        ("waldur_site_agent.backends:Backend", "is not a username backend"),
        ("waldur_site_agent.backends:CheckStatus.OK", "is not a username backend"),
    ],
)
def test_a_broken_plugin_is_refused_with_the_reason(
    installed: list[EntryPoint], target: str, reason: str
) -> None:
    installed.append(EntryPoint("broken", target, "waldur_site_agent.username_management_backends"))
    with pytest.raises(PluginError, match=reason):
        UsernameRegistry().backend_class("broken")


def test_a_ready_made_backend_stands_beside_the_installed() -> None:
    class Own(NoUsernames):
        pass

    extra: dict[str, type[UsernameBackend]] = {"own": Own}
    registry = UsernameRegistry(extra)
    assert registry.backend_class("own") is Own
    assert registry.names() == ["base", "own", "template"]
