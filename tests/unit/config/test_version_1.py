"""A file of version 1: every key has an answer, and nothing is ignored in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from waldur_site_agent.cli.main import main
from waldur_site_agent.config import Configuration, Offering, version_1
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.config.switching import Answer, OldKeys, row_of
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_slurm.settings import SlurmSettings

ROOT = Path(__file__).parents[3]
ROWS: dict[str, OldKeys] = {
    "file": version_1.KEYS,
    "slurm": SlurmSettings.version_1,
    "moab": MoabSettings.version_1,
    "environment": version_1.ENVIRONMENT,
}
MODELS: dict[str, type[BaseModel]] = {
    "": Configuration,
    version_1.OFFERING: Offering,
    version_1.COMPONENT: ComponentSettings,
}
COMPONENT: dict[str, Any] = {"label": "CPU", "measured_unit": "k-Hours", "accounting_type": "limit"}
OFFERING: dict[str, Any] = {
    "name": "Slurm",
    "waldur_api_url": "https://waldur.example.com/api/",
    "waldur_api_token": "secret-token",
    "waldur_offering_uuid": "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1",
    "backend_type": "slurm",
    "order_processing_backend": "slurm",
    "membership_sync_backend": "slurm",
    "reporting_backend": "slurm",
}


def keys_of_version_1() -> list[tuple[str, str]]:
    text = (ROOT / "tests" / "data" / "version_1" / "keys.txt").read_text(encoding="utf-8")
    found, section = [], ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            found.append((section, line))
    return found


def check(file: Path, content: Mapping[str, Any] | str) -> tuple[int, str]:
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    result = CliRunner().invoke(main, ["config", "check", "-c", str(file)])
    return result.exit_code, result.output.replace(str(file), "FILE")


def offering(settings: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {"offerings": [OFFERING | {"backend_settings": dict(settings or {})} | changes]}


@pytest.mark.parametrize(("section", "path"), keys_of_version_1())
def test_every_key_of_version_1_has_an_answer(section: str, path: str) -> None:
    row = row_of(ROWS[section], path)
    assert row is not None
    assert row.text or row.answer in (Answer.DONE, Answer.RENAMED)


def test_no_row_is_for_a_key_that_version_1_does_not_have() -> None:
    known = set(keys_of_version_1())
    rows = {(section, path) for section, keys in ROWS.items() for path in keys}
    assert rows - known == set()


@pytest.mark.parametrize(("section", "path"), keys_of_version_1())
def test_a_key_that_is_called_done_is_a_key_of_the_settings(section: str, path: str) -> None:
    row = ROWS[section].get(path)
    if row is None or section == "environment":
        return
    parent, _, name = path.rpartition(".")
    models: dict[str, type[BaseModel]] = {"slurm": SlurmSettings, "moab": MoabSettings}
    model = MODELS[parent] if section == "file" else models[section]
    match row.answer:
        case Answer.DONE:
            assert name in model.model_fields
        case Answer.RENAMED:
            assert row.name in model.model_fields
            assert name not in model.model_fields
        case _:
            assert name not in model.model_fields, "it works now: make its row in version_1.py done"


def on_and_off(row_section: str, path: str) -> tuple[object, object]:
    """A value with which a refused key matters, and one with which it does not."""
    on: dict[str, tuple[object, object]] = {
        "log_shipping": ({"enabled": True}, {"enabled": False, "ship_interval_seconds": 60}),
        "project_directory": ({"enabled": True}, {"base_path": "/projects"}),
        "periodic_limits": ({"enabled": True}, {"limit_type": "GrpTRESMins"}),
        "qos_management": ({"skip_qos_swap": True}, {"enabled": False, "flags": "NoDecay"}),
        "homedir_quota": ({"provider": "xfs"}, {}),
        "ldap": ({"uri": "ldaps://ldap.example.com"}, {}),
        "execution_mode": ("rest", "cli"),
        "default_account_policy": ("none", "common"),
        "soft_delete": (True, False),
        "qos_enforcement_enabled": (True, False),
        "enforce_offering_partitions": (True, False),
        "is_prepaid": (True, False),
    }
    return on.get(path.rpartition(".")[2], ("something", "" if row_section == "file" else None))


REFUSED = [
    (section, path)
    for section, rows in ROWS.items()
    for path, row in rows.items()
    if row.answer in (Answer.NOT_SUPPORTED, Answer.LATER)
]


def file_with(section: str, path: str, value: object) -> dict[str, Any]:
    parent, _, name = path.rpartition(".")
    if section == "slurm":
        return offering({name: value})
    if section == "moab":
        jobs = ("order_processing_backend", "membership_sync_backend", "reporting_backend")
        changes: dict[str, Any] = dict.fromkeys(jobs, "moab")
        return offering({name: value}, **changes)
    if parent == version_1.COMPONENT:
        return offering(backend_components={"cpu": COMPONENT | {name: value}})
    if parent == version_1.OFFERING:
        return offering(None, **dict[str, Any]({name: value}))
    return {name: value} | offering()


@pytest.mark.parametrize(("section", "path"), REFUSED)
def test_a_key_that_is_not_supported_is_an_error_only_where_it_is_on(
    section: str, path: str, tmp_path: Path
) -> None:
    on, off = on_and_off(section, path)
    code, output = check(tmp_path / "on.yaml", file_with(section, path, on))
    row = ROWS[section][path]
    name = path.rpartition(".")[2]
    assert code == 2
    assert f"{name}: {row.answer.value}; {row.text}" in output
    code, output = check(tmp_path / "off.yaml", file_with(section, path, off))
    assert (code, f"{name}:" in output) == (0, False)


IGNORED = [
    (section, path)
    for section, rows in ROWS.items()
    for path, row in rows.items()
    if row.answer is Answer.NOT_NEEDED and section != "environment"
]


@pytest.mark.parametrize(("section", "path"), IGNORED)
def test_a_key_that_is_not_needed_is_accepted_and_the_check_says_why(
    section: str, path: str, tmp_path: Path
) -> None:
    code, output = check(tmp_path / "config.yaml", file_with(section, path, "true"))
    assert code == 0
    assert f"not needed: {ROWS[section][path].text}" in output
    assert output.splitlines()[-1].startswith("ok: 1 offering")


def test_a_key_under_its_former_name_works(tmp_path: Path) -> None:
    settings = {"cluster_name": "one", "usage_tres_source": "requested"}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(offering(settings)))
    shown = CliRunner().invoke(main, ["config", "check", "--show", "-c", str(file)])
    (entry,) = yaml.safe_load(shown.output)["offerings"]
    found = entry["backend_settings"]
    assert (found["cluster"], found["usage_source"]) == ("one", "reqtres")
    assert "cluster_name" not in found


def test_a_key_under_both_of_its_names_is_an_error(tmp_path: Path) -> None:
    code, output = check(
        tmp_path / "config.yaml",
        offering({"cluster": "one", "cluster_name": "one"}),
    )
    assert code == 2
    assert "cluster_name: is the former name of cluster, which is also set; keep one" in output


def test_a_bad_value_is_reported_under_the_name_that_the_file_uses(tmp_path: Path) -> None:
    code, output = check(tmp_path / "config.yaml", offering({"cluster_name": "a b"}))
    assert code == 2
    assert 'offerings[0].backend_settings.cluster_name: found "a b"' in output
    assert output.startswith("FILE:3:")


def test_all_problems_are_named_at_once_those_of_backends_too(tmp_path: Path) -> None:
    settings = {"qos_pausd": "x", "execution_mode": "rest"}
    content = {"timezone": "Mars"} | offering(settings)
    content["offerings"][0]["verify_sll"] = True
    code, output = check(tmp_path / "config.yaml", content)
    assert code == 2
    in_settings = [f"settings.{key}:" for key in settings]
    for place in ("timezone:", "].verify_sll:", *in_settings):
        assert place in output


def test_top_level_keys_that_hold_anchors_are_left_out(tmp_path: Path) -> None:
    text = """
        _settings: &settings
          cluster_name: one
          qos_paused: paused
        x-common: &common
          waldur_api_url: https://waldur.example.com
          waldur_api_token: t
        offerings:
          - <<: *common
            name: A
            waldur_offering_uuid: 0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1
            order_processing_backend: slurm
            backend_settings:
              <<: *settings
    """
    code, output = check(tmp_path / "config.yaml", text)
    assert (code, output.splitlines()[-1]) == (0, "ok: 1 offering, 1 backend")


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("timezone: UTC", {"timezone": "Europe/Tallinn"}),
        ("preserve_unmanaged_backend_users: false", {"preserve_unmanaged_backend_users": True}),
        ("usage_source: reqtres", {"usage_tres_source": "allocated"}),
        ("requeued_jobs: last_run", {"requeued_jobs": "every_run"}),
        ("require_system_user: false", {"require_system_user": True}),
    ],
)
def test_a_default_that_changes_bills_or_access_is_named_with_the_line_for_the_old_one(
    line: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    content = offering()
    advice = f'to keep the behaviour of version 1, add "{line}"'
    assert advice in check(tmp_path / "a.yaml", content)[1]
    if "timezone" in changes:
        content |= changes
    elif "preserve_unmanaged_backend_users" in changes:
        content["offerings"][0] |= changes
    else:
        content["offerings"][0]["backend_settings"] |= changes
    assert advice not in check(tmp_path / "b.yaml", content)[1]


def test_a_key_that_does_something_else_now_is_named(tmp_path: Path) -> None:
    _, output = check(tmp_path / "a.yaml", offering(mqtt_enabled=True))
    assert "mqtt_enabled (line 5): events over MQTT, and the polling modes skip" in output
    assert "mqtt_enabled" not in check(tmp_path / "b.yaml", offering(mqtt_enabled=False))[1]


def test_a_remark_about_several_offerings_is_one_line(tmp_path: Path) -> None:
    other = {"name": "Other", "waldur_offering_uuid": "1" * 32}
    content = offering()
    content["offerings"].append(OFFERING | other)
    _, output = check(tmp_path / "config.yaml", content)
    (line,) = [line for line in output.splitlines() if "whom Waldur does not know" in line]
    assert line.startswith("  offerings (lines 2, 11): users of an account")


def test_a_file_that_was_not_written_for_version_1_hears_nothing_of_it(tmp_path: Path) -> None:
    content = offering()
    del content["offerings"][0]["backend_type"]
    assert "ersion 1" not in check(tmp_path / "config.yaml", content)[1]


@pytest.mark.parametrize(("kept", "decision"), [(True, "report"), (False, "remove")])
def test_unmanaged_users_are_kept_or_removed_as_the_key_says(kept: bool, decision: str) -> None:
    configuration = Configuration.model_validate(
        offering(preserve_unmanaged_backend_users=kept) | {"safety": {"max_removals": 3}}
    )
    safety = configuration.safety_of(configuration.offerings[0])
    assert (safety.unknown_users, safety.max_removals) == (decision, 3)


def test_unmanaged_users_are_decided_on_in_one_place(tmp_path: Path) -> None:
    code, output = check(
        tmp_path / "config.yaml",
        offering(preserve_unmanaged_backend_users=True, safety={"unknown_users": "remove"}),
    )
    assert code == 2
    assert "preserve_unmanaged_backend_users and safety.unknown_users are both set" in output


@pytest.mark.parametrize(("tls", "port"), [(True, 443), (False, 80)])
def test_the_broker_is_on_the_usual_port_of_its_scheme(tls: bool, port: int) -> None:
    configuration = Configuration.model_validate(offering(websocket_use_tls=tls))
    assert configuration.offerings[0].stomp_ws_port == port


def test_an_environment_variable_without_effect_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WALDUR_SITE_AGENT_STOMP_UNHEALTHY_AFTER_MINUTES", "15")
    _, output = check(tmp_path / "config.yaml", offering())
    assert output.count("WALDUR_SITE_AGENT_STOMP_UNHEALTHY_AFTER_MINUTES: not needed") == 1


def test_the_page_on_switching_shows_every_line_that_keeps_the_old_behaviour() -> None:
    page = (ROOT / "docs" / "switch-over.md").read_text(encoding="utf-8")
    before = page.split("## The day itself")[0]
    defaults = (
        *version_1.DEFAULTS_OF_FILE,
        *version_1.DEFAULTS_OF_OFFERING,
        *SlurmSettings.version_1_defaults,
    )
    assert [default.line for default in defaults if default.line not in before] == []


def test_the_table_of_the_documentation_is_what_the_agent_prints() -> None:
    page = (ROOT / "docs" / "switch-over.md").read_text(encoding="utf-8")
    printed = CliRunner().invoke(main, ["config", "version-1"]).output
    assert printed.strip() in page, "run: waldur-site-agent config version-1, and paste it"


def test_components_whose_bills_change_are_named(tmp_path: Path) -> None:
    node = COMPONENT | {"target_components": {"cpu": {"factor": 7680}, "gres/gpu": {"factor": 240}}}
    mem = COMPONENT | {"unit_factor": 60, "unit_factor_reporting": 3600}
    content = offering(backend_components={"node_hours": node, "mem": mem})
    code, output = check(tmp_path / "config.yaml", content)
    assert code == 0
    differences = output.partition("Different from version 1:")[2]
    assert "node_hours.target_components (line " in differences
    assert "of usage the largest share counts" in differences
    assert "mem.unit_factor_reporting (line " in differences
    assert "version 1 ignored it with Slurm and MOAB" in differences
