"""The key ``coordination``: which URLs it takes, and that its password is shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.in_process import run_in_process
from waldur_site_agent.config import ConfigurationError, load_configuration, resolved_yaml
from waldur_site_agent.config.database_url import DatabaseUrl

SECRET = "s3cret/w@rd"
QUOTED = "s3cret%2Fw%40rd"
OFFERING = {
    "name": "Slurm",
    "waldur_api_url": "https://waldur.example.com/api/",
    "waldur_api_token": "0123456789",
    "waldur_offering_uuid": "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1",
    "order_processing_backend": "slurm",
    "backend_components": {
        "cpu": {"label": "CPU", "measured_unit": "k-Hours", "accounting_type": "limit"}
    },
}


def written(directory: Path, **top: str) -> Path:
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump({**top, "offerings": [OFFERING]}))
    return file


def refused(file: Path, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(file, variables)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "host", "port", "database"),
    [
        (f"postgresql://agent:{QUOTED}@db.example.com/waldur", "db.example.com", 5432, "waldur"),
        (f"postgresql://agent:{SECRET}@db.example.com/waldur", "db.example.com", 5432, "waldur"),
        (f"postgres://agent:{QUOTED}@db:6432/waldur", "db", 6432, "waldur"),
        (f"mysql://agent:{QUOTED}@[2001:db8::1]/waldur", "2001:db8::1", 3306, "waldur"),
        (f"mariadb://agent:{QUOTED}@db/w?sslmode=verify-full&sslrootcert=/ca", "db", 3306, "w"),
    ],
)
def test_a_url_names_server_database_and_login(
    text: str, host: str, port: int, database: str
) -> None:
    url = DatabaseUrl.parse(text)
    assert (host, port, database) == (url.host, url.port, url.database)
    assert (url.user, url.password) == ("agent", SECRET)
    assert "s3cret" not in f"{url} {url!r}"


@pytest.mark.guarantee("Secrets are in no log")
@pytest.mark.parametrize(
    "text",
    [
        f"sqlite:///{QUOTED}",
        f"postgresql://agent:{QUOTED}@/waldur",
        f"postgresql://agent:{QUOTED}@db:99999/waldur",
        f"postgresql://agent:{QUOTED}@db",
        f"postgresql://agent:{QUOTED}@db/one/two",
        f"postgresql://:{QUOTED}@db/waldur",
        f"postgresql://agent:{QUOTED}@db/waldur?sslmode=allow",
        f"postgresql://agent:{QUOTED}@db/waldur?password={QUOTED}",
        f"agent:{QUOTED}@db/waldur",
    ],
)
def test_what_is_no_url_of_a_database_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    message = refused(written(tmp_path, coordination=text))
    assert "config.yaml:1: coordination: " in message
    assert "s3cret" not in message


def test_a_missing_driver_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for scheme, extra in (("postgresql", "postgresql"), ("mysql", "mysql")):
        message = refused(written(tmp_path, coordination=f"{scheme}://agent:{QUOTED}@db/w"))
        assert f'pip install "waldur-site-agent[{extra}]"' in message


def test_the_url_may_come_from_a_variable_or_a_file(tmp_path: Path) -> None:
    file = written(tmp_path, coordination="mysql://agent:${WORD}@db/waldur")
    configuration, _ = load_configuration(file, {"WORD": QUOTED})
    assert configuration.coordination_url is not None
    assert configuration.coordination_url.password == SECRET
    assert "the environment variable WORD is not set" in refused(file)
    (tmp_path / "url").write_text(f"postgresql://agent:{QUOTED}@db/waldur\n")
    configuration, _ = load_configuration(written(tmp_path, coordination_file="url"), {})
    assert str(configuration.coordination_url) == "postgresql://db:5432/waldur"
    both = written(tmp_path, coordination="mysql://agent@db/waldur", coordination_file="url")
    assert "stands beside coordination_file" in refused(both)
    assert "no such file" in refused(written(tmp_path, coordination_file="none"))


@pytest.mark.guarantee("Secrets are in no log")
def test_the_effective_configuration_hides_the_login(tmp_path: Path) -> None:
    file = written(tmp_path, coordination=f"postgresql://agent:{QUOTED}@db/waldur")
    configuration, _ = load_configuration(file, {})
    shown = yaml.safe_load(resolved_yaml(configuration))
    assert shown["coordination"] == "postgresql://********@db/waldur"
    done = run_in_process("waldur-site-agent", "config", "check", "--show", "-c", str(file))
    assert done.code == 0, done.err
    assert "s3cret" not in done.out + done.err


def test_without_the_key_file_locks_do(tmp_path: Path) -> None:
    for top in ({}, {"coordination": ""}):
        configuration, _ = load_configuration(written(tmp_path, **top), {})
        assert configuration.coordination_url is None


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("db.example.com/w", "sslmode=prefer"),
        ("db.example.com/w?sslmode=require", "sslmode=require"),
        ("192.0.2.1/w?sslmode=disable", "sslmode=disable"),
        ("db.example.com/w?sslmode=verify-full", ""),
        ("db.example.com/w?sslmode=verify-full&sslrootcert=/ca.pem", ""),
        ("127.0.0.1/w", ""),
        ("[::1]/w?sslmode=disable", ""),
        ("localhost/w", ""),
    ],
)
def test_a_database_elsewhere_without_a_verified_certificate_is_remarked(
    scheme: str, place: str, says: str
) -> None:
    url = DatabaseUrl.parse(f"{scheme}://agent:{QUOTED}@{place}")
    assert says in url.exposed
    assert bool(url.exposed) is bool(says)


def test_an_agent_warns_of_a_database_whose_certificate_is_not_verified(tmp_path: Path) -> None:
    url = f"postgresql://agent:{QUOTED}@db.invalid/w"
    warning = "the connection to the coordinating database is not protected"
    said = []
    for options in ("", "?sslmode=verify-full"):
        file = tmp_path / "config.yaml"
        offering = OFFERING | {"reporting_backend": "slurm"}
        file.write_text(yaml.safe_dump({"coordination": url + options, "offerings": [offering]}))
        done = run_in_process("waldur_site_agent", "-m", "report", "--once", "-c", str(file))
        assert "s3cret" not in done.out + done.err
        said.append(warning in done.err)
    assert said == [True, False]
