"""What the configuration file may say, and what an administrator reads when it is wrong."""

from __future__ import annotations

import os
import pwd
import re
import tempfile
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from waldur_site_agent.config import (
    Configuration,
    ConfigurationError,
    Job,
    load_configuration,
    problems_of,
    resolved_yaml,
)
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.model.marketplace import ACCOUNTING_RULES

EXAMPLES = Path(__file__).parents[3] / "examples"
OFFERING: dict[str, Any] = {
    "name": "Test",
    "waldur_api_url": "https://waldur.example.com/api/",
    "waldur_api_token": "secret-token",
    "waldur_offering_uuid": "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1",
    "order_processing_backend": "slurm",
}


def load(
    tmp_path: Path, text: str | dict[str, Any], environ: dict[str, str] | None = None
) -> Configuration:
    path = tmp_path / "config.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return load_configuration(path, environ or {})[0]


def load_offering(tmp_path: Path, **changes: Any) -> Configuration:
    entry = {key: v for key, v in (OFFERING | changes).items() if v is not ...}
    return load(tmp_path, {"offerings": [entry]})


def complaint(tmp_path: Path, text: str | dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(str(tmp_path), "DIR")


def complaint_about(tmp_path: Path, **changes: Any) -> str:
    entry = {key: v for key, v in (OFFERING | changes).items() if v is not ...}
    return complaint(tmp_path, {"offerings": [entry]})


def test_the_example_file_loads() -> None:
    path = EXAMPLES / "waldur-site-agent-config.yaml"
    configuration, _ = load_configuration(path, {"WALDUR_API_TOKEN": "t"})
    slurm, moab = configuration.offerings
    assert [slurm.backend_for(job) for job in Job] == ["slurm"] * 3
    assert [moab.backend_for(job) for job in Job] == ["moab"] * 3
    assert slurm.components["cpu"].unit_factor == Decimal(60000)
    assert slurm.components["gres/gpu"].limit == Decimal(10000)
    assert slurm.backend_settings["homedir_umask"] == "0077"


def test_keys_that_the_example_file_has_as_comments_are_keys() -> None:
    text = (EXAMPLES / "waldur-site-agent-config.yaml").read_text()
    reference = (EXAMPLES.parent / "docs" / "reference.md").read_text()
    keys = set(re.findall(r"^ *# +([a-z_]+):(?: |$)", text, re.MULTILINE))
    assert {"metrics_listen", "stomp_ws_host", "slurm_bin_path"} <= keys
    assert [key for key in sorted(keys) if f"| `{key}` |" not in reference] == []


def test_defaults_are_those_of_the_reference(tmp_path: Path) -> None:
    offering = load_offering(tmp_path).offerings[0]
    assert offering.verify_ssl
    assert offering.websocket_use_tls
    assert offering.username_management_backend == "base"
    assert not offering.resource_import_enabled
    assert not offering.by_events
    assert (offering.stomp_ws_port, offering.stomp_ws_path) == (443, "/rmqws-stomp")
    assert (offering.mqtt_ws_port, offering.mqtt_ws_path) == (443, "/rmqws")


@pytest.mark.parametrize(
    "uuid", ["0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1", "0f6c2c5a-e4d5-4a3f-a1f2-f6d2a6a0c9b1"]
)
def test_an_offering_uuid_may_have_dashes(tmp_path: Path, uuid: str) -> None:
    offering = load_offering(tmp_path, waldur_offering_uuid=uuid).offerings[0]
    assert offering.waldur_offering_uuid == UUID("0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1")


def test_numbers_that_yaml_would_misread_stay_as_they_were_written(tmp_path: Path) -> None:
    text = """
        offerings:
          - name: no
            waldur_api_url: https://waldur.example.com
            waldur_api_token: 0123456789
            waldur_offering_uuid: 11111111111111111111111111111111
            backend_settings: {homedir_umask: 0700}
    """
    offering = load(tmp_path, text).offerings[0]
    assert offering.name == "no"
    assert offering.token == "0123456789"
    assert offering.waldur_offering_uuid == UUID("1" * 32)
    assert offering.backend_settings["homedir_umask"] == "0700"


@pytest.mark.parametrize("empty", ["", "~", "null", '""'])
def test_an_empty_backend_means_the_job_does_not_run(tmp_path: Path, empty: str) -> None:
    text = f"""
        offerings:
          - name: A
            waldur_api_url: https://waldur.example.com
            waldur_api_token: t
            waldur_offering_uuid: {OFFERING["waldur_offering_uuid"]}
            order_processing_backend: slurm
            membership_sync_backend: {empty}
    """
    offering = load(tmp_path, text).offerings[0]
    assert offering.backend_for(Job.MEMBERSHIP) == ""


def test_backend_type_alone_stands_for_all_jobs(tmp_path: Path) -> None:
    configuration = load_offering(tmp_path, order_processing_backend=..., backend_type="SLURM")
    assert [configuration.offerings[0].backend_for(job) for job in Job] == ["slurm"] * 3


def test_backend_type_does_not_overrule_a_named_job(tmp_path: Path) -> None:
    offering = load_offering(tmp_path, backend_type="moab").offerings[0]
    assert [offering.backend_for(job) for job in Job] == ["slurm", "", ""]


def test_shared_settings_by_anchor_are_understood(tmp_path: Path) -> None:
    text = """
        offerings:
          - &first
            name: A
            waldur_api_url: https://waldur.example.com
            waldur_api_token: t
            waldur_offering_uuid: 0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1
          - <<: *first
            name: B
            waldur_offering_uuid: 7d1b0e7e3f2b4b1c9d590b5b3c1f7c11
    """
    second = load(tmp_path, text).offerings[1]
    assert (second.name, second.token) == ("B", "t")


def test_the_token_may_come_from_the_environment(tmp_path: Path) -> None:
    document = {"offerings": [OFFERING | {"waldur_api_token": "${MY_TOKEN}"}]}
    assert load(tmp_path, document, {"MY_TOKEN": "abc"}).offerings[0].token == "abc"


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    text = complaint_about(tmp_path, waldur_api_token="${MY_TOKEN}")
    assert "offerings[0].waldur_api_token: the environment variable MY_TOKEN is not set" in text


def test_the_token_may_come_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    configuration = load_offering(tmp_path, waldur_api_token=..., waldur_api_token_file="token")
    assert configuration.offerings[0].token == "from-file"


def test_a_token_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    changes = {"waldur_api_token": ..., "waldur_api_token_file": "token"}
    assert "waldur_api_token_file: DIR/token: no such file" in complaint_about(tmp_path, **changes)
    (tmp_path / "token").write_text("\n")
    assert "is empty" in complaint_about(tmp_path, **changes)


@pytest.mark.parametrize("token", ["Token abc123", "abc\x07123", "abc\u00e9123", "abc\n123"])
def test_a_token_that_cannot_be_one_is_refused_unshown(tmp_path: Path, token: str) -> None:
    text = complaint_about(tmp_path, waldur_api_token=token)
    assert "config.yaml:" in text
    assert "offerings[0].waldur_api_token: is not shown here, but holds characters" in text
    assert "123" not in text
    (tmp_path / "token").write_text(token)
    changes = {"waldur_api_token": ..., "waldur_api_token_file": "token"}
    assert "holds characters that no token has" in complaint_about(tmp_path, **changes)


def test_two_tokens_are_one_too_many(tmp_path: Path) -> None:
    text = complaint_about(tmp_path, waldur_api_token_file="token")
    assert "stands beside waldur_api_token_file" in text


def test_no_token_at_all_is_an_error(tmp_path: Path) -> None:
    assert "waldur_api_token: is missing" in complaint_about(tmp_path, waldur_api_token=...)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("stomp_enable", "stomp_enabled"),
        ("waldur_api_tokn", "waldur_api_token"),
        ("membership_sync_backed", "membership_sync_backend"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(
    tmp_path: Path, key: str, nearest: str
) -> None:
    text = complaint_about(tmp_path, **{key: "x"})
    assert f"offerings[0].{key}: unknown key" in text
    assert f'did you mean "{nearest}"?' in text


def test_unknown_keys_are_found_at_every_level(tmp_path: Path) -> None:
    component = {"measured_unit": "h", "label": "C", "accounting_type": "usage", "unit_factr": 2}
    entry = OFFERING | {"backend_components": {"cpu": component}, "safety": {"max_removal": 1}}
    text = complaint(tmp_path, {"timezon": "UTC", "offerings": [entry]})
    assert 'timezon: unknown key; did you mean "timezone"?' in text
    assert "offerings[0].backend_components.cpu.unit_factr: unknown key" in text
    assert 'did you mean "unit_factor"?' in text
    assert "offerings[0].safety.max_removal: unknown key" in text


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    text = complaint(
        tmp_path,
        "timezone: Mars/Olympus\n"
        "offerings:\n"
        "  - name: A\n"
        "    waldur_api_url: waldur.example.com\n"
        "    waldur_api_token: t\n"
        "    waldur_offering_uuid: not-a-uuid\n",
    )
    lines = text.splitlines()
    assert lines[0].startswith(
        'DIR/config.yaml:1: timezone: found "Mars/Olympus"; expected an IANA'
    )
    assert lines[1].startswith('DIR/config.yaml:4: offerings[0].waldur_api_url: found "waldur.ex')
    assert lines[2].startswith('DIR/config.yaml:6: offerings[0].waldur_offering_uuid: found "not-a')


@pytest.mark.parametrize("port", ["99999", "0", "x", "-1"])
def test_an_api_url_with_an_impossible_port_is_refused(tmp_path: Path, port: str) -> None:
    text = complaint_about(tmp_path, waldur_api_url=f"https://waldur.example.com:{port}/api/")
    assert "offerings[0].waldur_api_url: found" in text
    assert "expected a URL such as https://waldur.example.com/api/" in text


@pytest.mark.parametrize("host", ["waldur.example.com:8443", "[2001:db8::1]:8000", "localhost"])
def test_an_api_url_with_a_port_of_its_own_is_kept(tmp_path: Path, host: str) -> None:
    configuration = load_offering(tmp_path, waldur_api_url=f"https://{host}/api/")
    assert configuration.offerings[0].waldur_api_url == f"https://{host}/api/"


def test_both_event_switches_are_refused(tmp_path: Path) -> None:
    text = complaint_about(tmp_path, stomp_enabled=True, mqtt_enabled=True)
    assert "offerings[0]: stomp_enabled and mqtt_enabled are both true" in text


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = complaint(tmp_path, "timezone: UTC\ntimezone: UTC\nofferings: []\n")
    assert "config.yaml:2: timezone: is repeated, first on line 1" in text


def test_the_same_offering_twice_is_refused(tmp_path: Path) -> None:
    text = complaint(tmp_path, {"offerings": [OFFERING, OFFERING | {"name": "Other"}]})
    assert "two entries have the same waldur_offering_uuid" in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("offerings: [", "is not valid YAML"),
        ("- a\n- b\n", "found list at the top"),
        ("offerings: []\n", "at least one is needed"),
        ("{}", "offerings: is missing"),
        ("a: \x00", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_says_why(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in complaint(tmp_path, text)


def test_a_file_that_does_not_exist_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file; name it with -c"):
        load_configuration(tmp_path / "nowhere.yaml", {})


@pytest.fixture
def stranger() -> Iterator[str]:
    """The name of the user whom file permissions are checked for: nobody, if we are root."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield pwd.getpwuid(os.geteuid()).pw_name
    finally:
        os.seteuid(me)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_file_that_this_user_may_not_read_names_user_mode_and_remedy(
    open_directory: Path, request: pytest.FixtureRequest
) -> None:
    file = open_directory / "config.yaml"
    file.write_text("offerings: []")
    file.chmod(0)
    owner = f"{file.owner()}:{file.group()}"
    stranger = request.getfixturevalue("stranger")
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(file, {})
    assert str(caught.value) == (
        f'{file}: cannot be read by user "{stranger}": it has mode 0000 and belongs to {owner}; '
        "give the file to that user or to a group of theirs (chgrp and chmod g+r), or run this as "
        "its owner or as root"
    )


def test_a_directory_that_this_user_may_not_enter_is_the_one_that_is_named(
    open_directory: Path, request: pytest.FixtureRequest
) -> None:
    closed = open_directory / "etc"
    closed.mkdir()
    file = closed / "config.yaml"
    file.write_text("offerings: []")
    closed.chmod(0)
    request.addfinalizer(lambda: closed.chmod(0o700))
    stranger = request.getfixturevalue("stranger")
    with pytest.raises(ConfigurationError, match=f'by user "{stranger}": the directory {closed} '):
        load_configuration(file, {})


def test_a_directory_instead_of_a_file_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a directory; name the file in it"):
        load_configuration(tmp_path, {})


@pytest.mark.guarantee("Secrets are in no log, plan, metric, process argument or error report")
def test_the_printed_configuration_shows_no_secret(tmp_path: Path) -> None:
    document = {
        "sentry_dsn": "https://key@sentry.example.com/1",
        "offerings": [OFFERING | {"backend_settings": {"db_password": "hunter2", "user": "u"}}],
    }
    text = resolved_yaml(load(tmp_path, document))
    for secret in ("secret-token", "key@sentry", "hunter2"):
        assert secret not in text
    assert "waldur_api_token: '********'" in text
    assert "user: u" in text


def test_a_full_pass_is_no_password(tmp_path: Path) -> None:
    text = resolved_yaml(load_offering(tmp_path, backend_settings={"db_pass": "hunter2"}))
    assert "full_pass_minutes: 60" in text
    assert "db_pass: '********'" in text


@pytest.mark.guarantee("Secrets are in no log, plan, metric, process argument or error report")
def test_a_wrong_secret_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    text = complaint_about(tmp_path, waldur_api_tokens="secret-token")
    assert "unknown key" in text
    assert "secret-token" not in text


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "change",
    [
        {"waldur_api_tokn": SECRET},
        {"api_key": SECRET},
        {"anything": {"at": [SECRET]}},
        {"waldur_api_url": f"https://agent:{SECRET}@waldur.example.com/api/"},
        {"waldur_api_url": f"https://waldur.example.com/api/?key={SECRET}"},
        {"stomp_ws_port": f"amqp://agent:{SECRET}@broker"},
        {"waldur_api_token": f"{SECRET}\t{SECRET}"},
    ],
)
def test_a_secret_at_the_wrong_place_is_in_no_message(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    text = complaint_about(tmp_path, **change)
    assert f"offerings[0].{next(iter(change))}" in text
    assert "hunter2" not in text


class PluginSettings(BaseModel):
    """What some plugin asks for, with errors as the agent's own settings have them."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    db_passwd: int = 0
    credentials: dict[str, int] = {}
    port: int = 0


@pytest.mark.parametrize(
    "settings",
    [
        {"passwd": SECRET},
        {"db_passwd": SECRET},
        {"credentials": {"user": SECRET}},
        {"port": f"mysql://root:{SECRET}@db/slurm"},
    ],
)
def test_a_plugins_secret_is_in_no_message(tmp_path: Path, settings: dict[str, Any]) -> None:
    entry = OFFERING | {"backend_settings": settings}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"offerings": [entry]}))
    _, source = load_configuration(path, {})
    with pytest.raises(ValidationError) as caught:
        PluginSettings.model_validate(settings)
    at = ("offerings", 0, "backend_settings")
    text = str(ConfigurationError(path, problems_of(caught.value, source, PluginSettings, at)))
    assert f"backend_settings.{next(iter(settings))}" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "settings",
    [
        {"db": {"passwd": SECRET}},
        {"api-key": SECRET},
        {"credentials": {"user": SECRET, "more": [SECRET]}},
        {"database": f"mysql://root:{SECRET}@db/slurm"},
        {"endpoints": [f"https://x.example.com/?key={SECRET}"]},
    ],
)
def test_a_plugins_secret_is_not_printed(tmp_path: Path, settings: dict[str, Any]) -> None:
    text = resolved_yaml(load_offering(tmp_path, backend_settings=settings))
    assert next(iter(settings)) in text
    assert "hunter2" not in text


def test_the_file_that_holds_a_secret_is_printed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    configuration = load_offering(tmp_path, waldur_api_token=..., waldur_api_token_file="token")
    assert "waldur_api_token_file: token\n" in resolved_yaml(configuration)


def test_secrets_do_not_show_in_a_repr(tmp_path: Path) -> None:
    assert "secret-token" not in repr(load_offering(tmp_path))


@pytest.mark.parametrize("factor", ["0", "-1", "many", "nan"])
def test_a_unit_factor_must_be_a_positive_number(tmp_path: Path, factor: str) -> None:
    component = {
        "measured_unit": "h",
        "label": "C",
        "accounting_type": "usage",
        "unit_factor": factor,
    }
    text = complaint_about(tmp_path, backend_components={"cpu": component})
    assert f'backend_components.cpu.unit_factor: found "{factor}"' in text


def test_every_accounting_type_with_rules_can_be_configured_and_no_other() -> None:
    configurable = typing.get_args(ComponentSettings.model_fields["accounting_type"].annotation)
    assert set(configurable) == set(ACCOUNTING_RULES)


def components(**others: dict[str, Any]) -> dict[str, Any]:
    """Node-hours of two targets, beside other components."""
    described = {"measured_unit": "hours", "label": "x", "accounting_type": "limit"}
    targets = {"cpu": {"factor": 7680}, "gres/gpu": None}
    all_of_them = {"nodes": {"target_components": targets}, **others}
    return {name: described | keys for name, keys in all_of_them.items()}


def test_a_component_may_have_targets_beside_others_without(tmp_path: Path) -> None:
    found = load_offering(tmp_path, backend_components=components(mem={"unit_factor": 61440}))
    read = found.offerings[0].components
    assert read["nodes"].targets == {"cpu": Decimal(7680), "gres/gpu": Decimal(1)}
    assert read["mem"].parts == (read["mem"],)


@pytest.mark.parametrize(
    "others", [{"CPU": {}}, {"fat": {"target_components": {"cpu": {"factor": 1}}}}]
)
def test_a_target_of_two_components_is_refused(tmp_path: Path, others: dict[str, Any]) -> None:
    text = complaint_about(tmp_path, backend_components=components(**others))
    assert "its usage would be billed twice" in text


def test_factors_that_targets_override_are_named(tmp_path: Path) -> None:
    both = {"unit_factor": 60, "unit_factor_reporting": 2}
    mapped = {**both, "target_components": {"billing": {"factor": 5}}}
    found = load_offering(tmp_path, backend_components=components(mem=both, fat=mapped))
    entries = found.offerings[0].backend_components
    assert (entries["nodes"].without_effect, entries["mem"].without_effect) == ((), ())
    assert entries["fat"].without_effect == tuple(both)
