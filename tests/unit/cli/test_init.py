"""``init``: what a newcomer answers becomes files that work."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import Installation
from harness.in_process import run_in_process
from harness.processes import Finished
from waldur_site_agent.cli.install import Choices, unit
from waldur_site_agent.config import load_configuration

UUID = "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1"
TOKEN = "0123456789abcdef"
OPTIONS = {
    "--waldur-url": "https://waldur.example.com",
    "--offering-uuid": UUID,
    "--token-file": "-",
    "--backend": "slurm",
    "--name": "Slurm at Example HPC",
}


def init(file: Path, *more: str, token: str = TOKEN, **changes: str | None) -> Finished:
    """Run the command without a terminal; an option that is None is left out."""
    given = OPTIONS | {f"--{key.replace('_', '-')}": value for key, value in changes.items()}
    options = [word for key, value in given.items() if value is not None for word in (key, value)]
    return run_in_process(
        "waldur-site-agent", "init", "-c", str(file), *options, *more, given=token
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "config.yaml"


@pytest.mark.parametrize("backend", ["slurm", "moab"])
def test_the_files_pass_the_check_and_the_next_commands_are_named(file: Path, backend: str) -> None:
    done = init(file, backend=backend)
    assert done.code == 0, done.err
    assert f"waldur-site-agent diagnose -c {file}" in done.out
    assert f"waldur-site-agent components load -c {file}" in done.out
    assert f"waldur-site-agent plan -c {file}" in done.out
    assert f"waldur-site-agent install-services -c {file}" in done.out
    assert TOKEN not in done.out + done.err + file.read_text()
    checked = run_in_process("waldur-site-agent", "config", "check", "-c", str(file))
    assert checked.out.endswith("\nok: 1 offering, 1 backend\n"), checked.err
    configuration, _ = load_configuration(file, {})
    assert configuration.safety.missing_limits == "refuse"
    (offering,) = configuration.offerings
    assert (offering.name, offering.token) == ("Slurm at Example HPC", TOKEN)
    assert offering.waldur_api_url == "https://waldur.example.com/api/"
    assert offering.components


def test_the_token_is_for_its_owner_alone(file: Path) -> None:
    assert init(file).code == 0
    secret = file.parent / "environment"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text() == f"WALDUR_API_TOKEN={TOKEN}\n"


def test_systemd_units_read_the_token_that_it_wrote(file: Path) -> None:
    assert init(file).code == 0
    text = unit("all", Choices(config=file))
    assert f"EnvironmentFile=-{file.parent}/environment\n" in text
    assert "EnvironmentFile=-/etc/waldur-site-agent/environment\n" in text


def test_a_variable_of_the_process_counts_more_than_the_file(file: Path) -> None:
    assert init(file).code == 0
    (offering,) = load_configuration(file, {"WALDUR_API_TOKEN": "another"})[0].offerings
    assert offering.token == "another"


def test_a_file_with_a_name_that_yaml_would_misread_is_read_as_it_was_given(file: Path) -> None:
    name = 'GPU: the "big" one # 1 \u00e4'
    assert init(file, name=name).code == 0
    assert load_configuration(file, {})[0].offerings[0].name == name


def test_nothing_that_exists_is_overwritten(file: Path) -> None:
    file.parent.mkdir()
    for path in (file, file.parent / "environment"):
        path.write_text("precious\n")
        done = init(file)
        assert done.code == 2
        assert str(path) in done.err
        assert path.read_text() == "precious\n"
        path.unlink()


def test_force_keeps_the_old_files_and_the_other_variables(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("old\n")
    secret = file.parent / "environment"
    secret.write_text("WALDUR_API_TOKEN=old\nWALDUR_SITE_AGENT_REPORT_PERIOD_MINUTES=60\n")
    secret.chmod(0o644)
    assert init(file, "--force").code == 0
    assert file.with_name("config.yaml.old").read_text() == "old\n"
    assert secret.read_text() == (
        f"WALDUR_SITE_AGENT_REPORT_PERIOD_MINUTES=60\nWALDUR_API_TOKEN={TOKEN}\n"
    )
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_without_a_terminal_it_names_the_options_that_are_missing(file: Path) -> None:
    done = init(file, waldur_url=None, token_file=None)
    assert done.code == 2
    assert "these options are required: --waldur-url, --token-file" in done.err
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"waldur_url": "waldur.example.com"}, "--waldur-url: it cannot be used"),
        ({"offering_uuid": "my-offering"}, '--offering-uuid: "my-offering" is not a UUID'),
        ({"backend": "slrum"}, 'did you mean "slurm"?'),
        ({"token": "Token abc"}, "characters that no token has"),
        ({"token": "\n"}, "the token is empty"),
        ({"token_file": "/nowhere/token"}, "--token-file: /nowhere/token cannot be read"),
        ({"name": "two\nlines"}, "--name: enter a name on one line"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused(
    file: Path, changes: dict[str, Any], words: str
) -> None:
    done = init(file, **changes)
    assert done.code == 2
    assert words in done.err
    assert "abc" not in done.err
    assert not file.exists()


def test_a_directory_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where the directory should be")
    done = init(tmp_path / "etc" / "config.yaml")
    assert done.code == 1
    assert "cannot be written" in done.err
    assert "-c FILE" in done.err


def test_what_it_writes_works_against_a_waldur(installation: Installation) -> None:
    testbed, file = installation.testbed, installation.file
    file.unlink()
    order = testbed.order(testbed.project(ada="ada01"), cpu=10, mem=1)
    settings = {"slurm_bin_path": str(installation.directory / "bin"), "require_system_user": "no"}
    more = [word for key, value in settings.items() for word in ("--setting", f"{key}={value}")]
    done = init(
        file,
        *more,
        token=testbed.sandbox.token,
        waldur_url=testbed.url,
        offering_uuid=testbed.sandbox.offering.uuid,
    )
    assert done.code == 0, done.err
    assert yaml.safe_load(file.read_text())["offerings"][0]["backend_settings"] == {
        "customer_prefix": "c_",
        "project_prefix": "p_",
        "allocation_prefix": "hpc_",
        **settings,
    }
    ran = installation.run("run", "--once", command="waldur-site-agent")
    assert ran.code == 0, ran.err
    assert testbed.state(order) == "done"
