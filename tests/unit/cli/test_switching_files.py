"""Files of version 1, as its users have them: each is accepted, or refused for a reason."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from waldur_site_agent.cli.main import main
from waldur_site_agent.config import version_1
from waldur_site_agent.config.switching import Answer, OldKey
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_slurm.settings import SlurmSettings

FILES = sorted(
    file
    for file in (Path(__file__).parents[2] / "data" / "version_1").glob("*.yaml")
    if file.name != "blocks.yaml"
)
BLOCKS: list[dict[str, Any]] = yaml.safe_load(
    (FILES[0].parent / "blocks.yaml").read_text(encoding="utf-8")
)
ALWAYS_REFUSED = {
    "another-plugin.yaml": {
        "order_processing_backend",
        "membership_sync_backend",
        "reporting_backend",
    },
    "slurm-ldap.yaml": {"username_management_backend"},
}
"""Keys that name a plugin which is not installed."""
REASONS = re.compile(r"supported[;:]|not yet supported|is installed; installed: ")
PLAIN: dict[str, Any] = {
    "name": "Part",
    "waldur_api_url": "https://portal.example.org/api/",
    "waldur_api_token": "0123456789",
    "waldur_offering_uuid": "40000001e4d54a3fa1f2f6d2a6a0c9b1",
}
COMPONENT = {"label": "CPU", "measured_unit": "k-Hours", "accounting_type": "limit"}


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def is_open(row: OldKey | None) -> bool:
    return row is not None and row.answer in (Answer.NOT_SUPPORTED, Answer.LATER)


def rows_of(key: str) -> list[OldKey]:
    tables = (version_1.KEYS, SlurmSettings.version_1, MoabSettings.version_1)
    return [row for rows in tables for path, row in rows.items() if path.split(".")[-1] == key]


def refused_in(text: str) -> set[str]:
    """The keys of errors such as ``config.yaml:3: offerings[0].name: ...``."""
    return {match[1] for match in re.finditer(r"^\S+:\d+: (?:\S+\.)?(\w+): ", text, re.MULTILINE)}


def expected(file: Path) -> set[str]:
    """The keys that the first line of a file calls on and that are not supported now."""
    first = file.read_text(encoding="utf-8").splitlines()[0]
    named = [key.strip() for key in first.partition("; on: ")[2].split(",") if key.strip()]
    open_keys = {key for key in named if any(is_open(row) for row in rows_of(key))}
    if "oidc_token_url" in open_keys:
        open_keys.add("waldur_api_token")
    return open_keys | ALWAYS_REFUSED.get(file.name, set())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_of_version_1_is_accepted_or_refused_for_the_keys_that_are_not_supported(
    file: Path,
) -> None:
    result = run("config", "check", "-c", file)
    assert refused_in(result.output) == expected(file)
    assert result.exit_code == (2 if expected(file) else 0)
    for line in result.output.splitlines() if expected(file) else ():
        assert REASONS.search(line) or ".waldur_api_token: is missing" in line


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["about"])
def test_a_part_of_a_file_of_version_1_is_accepted_or_refused_for_a_stated_reason(
    block: dict[str, Any], tmp_path: Path
) -> None:
    level, part = block["level"], block["block"]
    backend = "moab" if level == "moab" else "slurm"
    jobs = ("order_processing_backend", "membership_sync_backend", "reporting_backend")
    entry: dict[str, Any] = PLAIN | {"backend_type": backend} | dict.fromkeys(jobs, backend)
    content: dict[str, Any] = {"offerings": [entry]}
    match level:
        case "file":
            content |= part
        case "offering":
            entry |= part
        case "component":
            entry["backend_components"] = {"units": COMPONENT | part}
        case _:
            entry["backend_settings"] = part
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    result = run("config", "check", "-c", file)
    rows = [row for key in part for row in rows_of(key)]
    if not any(is_open(row) for row in rows):
        assert result.exit_code == 0, result.output
    for line in result.output.splitlines() if result.exit_code else ():
        assert REASONS.search(line)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_migrate_prints_is_accepted_where_nothing_is_refused(
    file: Path, tmp_path: Path
) -> None:
    result = run("migrate", "-c", file)
    unsupported = expected(file) - {"waldur_api_token"} - ALWAYS_REFUSED.get(file.name, set())
    assert result.exit_code == (1 if unsupported else 0)
    new = tmp_path / "config.yaml"
    new.write_text(result.stdout)
    check = run("config", "check", "-c", new)
    assert refused_in(check.output) == expected(file)
    assert "not needed" not in check.output
    assert "Different from version 1" not in check.output
    for key in unsupported:
        assert re.search(rf"# TO DO: .*\n(\s*#.*\n)*\s*(- )?{key}:", result.stdout)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_migrating_twice_changes_nothing_more(file: Path, tmp_path: Path) -> None:
    once = run("migrate", "-c", file)
    new = tmp_path / "config.yaml"
    new.write_text(once.stdout)
    again = run("migrate", "-c", new)
    if once.exit_code == 0:
        remarks = re.compile(r"^ *#.*\n", re.MULTILINE)
        assert remarks.sub("", again.stdout) == remarks.sub("", once.stdout)


def migrate(tmp_path: Path, text: str) -> str:
    file = tmp_path / "old.yaml"
    file.write_text(text)
    return run("migrate", "-c", file).output


ENTRY = """\
offerings:
  - name: A   # the first
    waldur_api_url: https://portal.example.org
    waldur_api_token: "0123456789"
    waldur_offering_uuid: 40000001e4d54a3fa1f2f6d2a6a0c9b1
    order_processing_backend: slurm
    backend_settings:
"""


def test_comments_quotes_and_order_stay(tmp_path: Path) -> None:
    old = f"# ours\ntimezone: 'UTC'  # always\n\n{ENTRY}      cluster_name: one   # big\n"
    assert migrate(tmp_path, old) == old.replace("cluster_name: one", "cluster: one")


def test_what_is_not_printable_stays_as_it_is(tmp_path: Path) -> None:
    old = f"{ENTRY}      qos_paused: hold  # since\t2020\u00a0\n"
    assert migrate(tmp_path, old) == old


def test_a_value_is_spelt_anew_with_its_key(tmp_path: Path) -> None:
    old = f'{ENTRY}      usage_tres_source: "requested"  # as asked\n'
    assert "      usage_source: reqtres  # as asked\n" in migrate(tmp_path, old)


def test_a_section_that_is_not_needed_becomes_a_comment_with_the_reason(tmp_path: Path) -> None:
    old = f"{ENTRY}      rest_api:\n        url: http://x\n      qos_paused: hold\n"
    assert (
        "      # not needed: it belongs to execution_mode: rest; Slurm's commands are used\n"
        "      # rest_api:\n"
        "      #   url: http://x\n"
        "      qos_paused: hold\n"
    ) in migrate(tmp_path, old)


def test_a_key_behind_a_dash_leaves_the_dash(tmp_path: Path) -> None:
    old = ENTRY.replace("- name", "- stomp_membership_sync_enabled: true\n    name")
    assert "\n  - name: A   # the first\n" in migrate(tmp_path, old + "      qos_paused: hold\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{check_all_offerings: false, qos_paused: hold}", "{qos_paused: hold}"),
        ("{qos_paused: hold, check_all_offerings: false}", "{qos_paused: hold}"),
        (
            "{qos_paused: hold, check_all_offerings: no, backend_id_max_retries: 5}",
            "{qos_paused: hold, backend_id_max_retries: 5}",
        ),
        ("{check_all_offerings: false}", "{}"),
        ("{cluster_name: a, usage_tres_source: requested}", "{cluster: a, usage_source: reqtres}"),
    ],
)
def test_keys_in_braces_are_taken_out(tmp_path: Path, old: str, new: str) -> None:
    before = ENTRY.rstrip("\n")
    assert migrate(tmp_path, f"{before} {old}\n").splitlines()[-1].strip() == (
        f"backend_settings: {new}"
    )


def test_shared_settings_are_rewritten_where_they_are(tmp_path: Path) -> None:
    shared = "_settings: &settings\n  cluster_name: one\n"
    old = shared + ENTRY.rstrip("\n") + " *settings\n"
    new = migrate(tmp_path, old)
    assert new == old.replace("cluster_name", "cluster")


def test_the_line_that_keeps_the_old_behaviour_is_beside_the_key(tmp_path: Path) -> None:
    old = ENTRY.replace("    order", "    backend_type: slurm\n    order") + "      qos_paused: x\n"
    new = migrate(tmp_path, old)
    assert "      # usage_source: reqtres\n" in new
    assert "    # preserve_unmanaged_backend_users: false\n" in new
    assert "# timezone: UTC\n" in new
    assert "    # backend_type: slurm\n" in new


SETTINGS = (
    "cluster_name: one",
    'usage_tres_source: "requested"',
    "homedir_base_path: /home",
    "default_homedir_umask: '0077'",
    "qos_paused: hold",
    "soft_delete: false",
    "rest_api: {url: http://x, token_file: /t}",
    "periodic_limits: {}",
    "backend_id_max_retries: 5",
    "qos_default: normal",
)
KEYS = (
    "stomp_membership_sync_enabled: true",
    "verify_ssl: true",
    "omit_anomalous_usage_components: false",
    "username_reconciliation_enabled: ",
    "backend_type: slurm",
    "name: A",
)
REMARKS = ("", "  # a remark", "\n\n      # a line of its own")


@st.composite
def files(draw: st.DrawFn) -> str:
    """Files with keys of version 1 in any order, as blocks or in braces, shared or not."""
    chosen = draw(st.lists(st.sampled_from(SETTINGS), unique=True, min_size=1))
    keys = draw(st.permutations(KEYS))
    tail = [
        "waldur_api_url: https://portal.example.org",
        "waldur_api_token: t",
        f"waldur_offering_uuid: {40000001:032d}",
        "order_processing_backend: slurm",
    ]
    remarks = [draw(st.sampled_from(REMARKS)) for _ in chosen]
    style = draw(st.sampled_from(["block", "braces", "lines in braces", "shared", "merged"]))
    lines = [f"      {line}{remark}" for line, remark in zip(chosen, remarks, strict=True)]
    head, body = "", "\n" + "\n".join(lines)
    match style:
        case "braces":
            body = f" {{{', '.join(chosen)}}}"
        case "lines in braces":
            body = " {\n      " + ",\n      ".join(chosen) + "\n    }"
        case "shared":
            head, body = "x-settings: &it" + body + "\n", " *it"
        case "merged":
            head, body = "_settings: &it" + body + "\n", "\n      <<: *it"
    entry = "\n    ".join([*keys, *tail])
    return f"{head}offerings:\n  - {entry}\n    backend_settings:{body}\n"


@given(files())
@settings(max_examples=60)
def test_a_file_means_the_same_after_migrating_however_it_is_laid_out(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "config.yaml"
        file.write_text(text)
        shown = run("config", "check", "--show", "-c", file)
        result = run("migrate", "-c", file)
        assert (shown.exit_code, result.exit_code) == (0, 0), result.output
        file.write_text(result.stdout)
        meant = run("config", "check", "--show", "-c", file)
        assert without_type(meant.stdout) == without_type(shown.stdout)
        assert "not needed" not in run("config", "check", "-c", file).stdout


def without_type(shown: str) -> str:
    return re.sub(r"^ *backend_type: .*\n", "", shown, flags=re.MULTILINE)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "is not valid YAML" in migrate(tmp_path, "offerings: [")
