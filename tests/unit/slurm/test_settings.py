"""What a site may say about its cluster."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from waldur_site_agent_slurm.settings import SlurmSettings


def test_an_empty_section_is_a_usable_configuration() -> None:
    settings = SlurmSettings()
    assert settings.default_account == "root"
    assert settings.command_timeout_seconds == 60
    assert settings.require_system_user


@pytest.mark.parametrize("value", ["0700", 0o700])
def test_a_umask_may_be_written_with_or_without_quotes(value: object) -> None:
    assert SlurmSettings.model_validate({"homedir_umask": value}).homedir_umask == "0700"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("default_account", "a,b"),
        ("default_account", ""),
        ("customer_prefix", "x["),
        ("allocation_prefix", "-i"),
        ("cluster", "one two"),
        ("homedir_umask", "rwx"),
        ("command_timeout_seconds", 0),
        ("customer_prefx", "c_"),
    ],
)
def test_a_bad_value_or_key_is_named(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        SlurmSettings.model_validate({key: value})


def test_names_are_kept_as_slurm_stores_them() -> None:
    settings = SlurmSettings(default_account="HPC", cluster="Big")
    assert (settings.default_account, settings.cluster) == ("hpc", "big")
