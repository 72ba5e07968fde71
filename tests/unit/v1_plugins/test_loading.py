"""Plugins of version 1: what they find, what refuses them, and what they warn of."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint
from typing import Any
from uuid import uuid4

import pytest

from harness.v1_site import CAMPUS, V1Site, a_v1_site, adapted, campus
from waldur_site_agent.backends import (
    AccountLinkingRequired,
    AdditionalValidationRequired,
    Check,
    CheckStatus,
    PermanentError,
    TemporaryError,
    plugins,
)
from waldur_site_agent.backends.plugins import PluginError, PluginRegistry, installed_plugins
from waldur_site_agent.model.errors import DefectError
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent_v1_plugins import settings
from waldur_site_agent_v1_plugins.errors import sorted_error

USERNAMES = "waldur_site_agent.username_management_backends"


def plugin_of(value: str, name: str = "campus") -> Any:
    campus()
    entry_point = EntryPoint(name, value, "waldur_site_agent.backends")
    (any_installed, *_) = installed_plugins().values()
    return plugins.Plugin(name, "campus-storage", any_installed.group, entry_point)


def test_a_plugin_of_version_1_is_loaded_behind_the_adapter() -> None:
    assert plugin_of(CAMPUS).load().__name__ == "CampusBackend"


def test_without_the_adapter_it_is_refused_with_the_advice_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plugins, "ADAPTERS", "nothing.is.installed.there")
    with pytest.raises(PluginError, match="install waldur-site-agent-v1-plugins"):
        plugin_of(CAMPUS).load()


@pytest.mark.parametrize("name", ["waldur", "litellm", "ldap-roles"])
def test_plugins_that_cannot_run_are_refused_by_name_with_the_reason(name: str) -> None:
    with pytest.raises(PluginError, match=f'"{name}" .* cannot run .* version 1|cannot run'):
        plugin_of(CAMPUS, name).load()


@pytest.mark.guarantee("v1-plugins: Which published plugins run")
def test_a_plugin_that_decides_about_orders_before_their_approval_is_refused() -> None:
    with pytest.raises(PermanentError, match="decides about orders before they are approved"):
        adapted("campus_storage.backend:DecidingBackend")


def test_a_backend_for_usage_alone_errs_no_order() -> None:
    campus().forget()
    with a_v1_site(adapted("campus_storage.backend:ReportingBackend")) as site:
        order = site.order(site.project(ada="ada01"), "Ocean", cpu=1)
        report = site.cycle()
        assert site.state(order) == "executing"
        assert "name another backend" in report.results[0].reason


def test_plugins_share_the_classes_that_they_import_by_either_name() -> None:
    campus()
    backends = importlib.import_module("waldur_site_agent.backend.backends")

    from waldur_site_agent_v1_plugins.interface.backend import backends as ours  # noqa: PLC0415

    assert backends is ours
    assert backends.__name__ == ours.__name__ == ours.__spec__.name


def diagnosed(site: V1Site) -> list[Check]:
    with site.agent() as agent:
        return [*agent.backend.diagnose()]


def test_the_schema_of_a_plugin_warns_and_does_not_repeat_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campus().forget()
    schema = EntryPoint(
        "campus", "campus_storage.schemas:CampusSettings", settings.SETTINGS_SCHEMAS
    )
    monkeypatch.setattr(
        settings, "entry_points", lambda group: [schema] if group == schema.group else []
    )
    with a_v1_site(adapted(CAMPUS), server="fs", password="hunter2", sever="fs2") as site:
        warnings = [c for c in diagnosed(site) if c.verdict is CheckStatus.WARNING]
    assert [check.detail for check in warnings] == ["sever: Extra inputs are not permitted"]
    assert "hunter2" not in repr(warnings)


def test_a_plugin_that_cannot_be_started_is_a_failed_check() -> None:
    campus().STATE["away"] = True
    with a_v1_site(adapted(CAMPUS)) as site:
        (check,) = diagnosed(site)
    campus().forget()
    assert check.verdict is CheckStatus.FAILED
    assert "does not answer" in check.detail


def user(name: str) -> OfferingUser:
    return OfferingUser(uuid=uuid4(), user_uuid=uuid4(), user_username=name, state="Creating")


def names_of(value: str = "campus_storage.usernames:CampusUsernames", **written: Any) -> Any:
    cls = adapted(value, group=USERNAMES)
    return cls(cls.Settings.model_validate(written))


def test_usernames_are_found_or_made_by_the_plugin() -> None:
    names = names_of(prefix="u-")
    assert names.get_username(user("ada")) == "ada01"
    assert names.get_username(user("bob")) is None
    assert names.generate_username(user("bob")) == "u-bob"
    assert names_of("campus_storage.usernames:OldUsernames").generate_username(user("x")) == "old-x"


def test_people_who_must_act_first_get_the_plugins_message_and_link() -> None:
    with pytest.raises(AccountLinkingRequired) as linking:
        names_of().get_username(user("link"))
    assert (linking.value.message, linking.value.url) == ("link it", "https://id.example.com")
    with pytest.raises(AdditionalValidationRequired, match="show your passport"):
        names_of().get_username(user("validate"))


@pytest.mark.guarantee("v1-plugins: What holds for such plugins")
def test_a_directory_that_is_away_is_temporary_and_secrets_are_masked() -> None:
    with pytest.raises(TemporaryError) as raised:
        names_of(bind_password="hunter2").get_username(user("away"))
    assert "hunter2" not in str(raised.value)


def test_the_registry_of_the_agent_accepts_the_adapted_class() -> None:
    group = plugin_of(CAMPUS).group
    registry: Any = PluginRegistry(group, {"campus": adapted(CAMPUS)})
    assert "campus" in registry.names()


class _HttpError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"answer {status}")
        self.status_code = status


def _backend_error(text: str, cause: Exception | None = None) -> Exception:
    campus()
    from waldur_site_agent_v1_plugins.interface.backend.exceptions import (  # noqa: PLC0415
        BackendError,
    )

    error = BackendError(text)
    error.__cause__ = cause
    return error


@pytest.mark.guarantee("v1-plugins: What holds for such plugins")
@pytest.mark.parametrize(
    ("error", "family"),
    [
        (_backend_error("it failed"), TemporaryError),
        (_backend_error("API error 500: oops"), TemporaryError),
        (_backend_error("HTTP status 409"), PermanentError),
        (_backend_error("refused", _HttpError(422)), PermanentError),
        (_backend_error("not found", _HttpError(404)), TemporaryError),
        (_backend_error("forbidden", _HttpError(403)), TemporaryError),
        (_backend_error("cannot connect", ConnectionRefusedError()), TemporaryError),
        (_backend_error("project status-409 is slow", TimeoutError()), TemporaryError),
        (TypeError("None has no items"), DefectError),
        (RuntimeError("anything"), TemporaryError),
    ],
    ids=str,
)
def test_only_a_certain_refusal_is_permanent(error: Exception, family: type) -> None:
    assert type(sorted_error("x", error)) is family
