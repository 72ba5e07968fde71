"""Which servers are believed to be who they say they are; on real TLS connections."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from harness.patience import patience
from harness.proxies import a_proxy
from waldur_site_agent.config import Offering
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.service.session import connect
from waldur_site_agent.waldur import Waldur

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed"
)


class Versioned(http.server.BaseHTTPRequestHandler):
    """A Waldur that knows nothing but its version."""

    def do_GET(self) -> None:
        body = b'{"version": "8.1.3"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal of the tests."""


def issue(file: Path, *extensions: str, signed_by: Path | None = None) -> Path:
    """Make a certificate for 127.0.0.1, its own authority if no other, with its key beside it."""
    authority = ("-CA", signed_by, "-CAkey", signed_by.with_suffix(".key")) if signed_by else ()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *(word for extension in extensions for word in ("-addext", extension)),
            *(str(word) for word in authority),
            *("-keyout", str(file.with_suffix(".key")), "-out", str(file)),
        ],
        check=True,
        capture_output=True,
        timeout=patience(),
    )
    return file


@contextmanager
def served(certificate: Path) -> Iterator[str]:
    """The API of a server with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Versioned) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield f"https://127.0.0.1:{server.server_port}/api/"
        server.shutdown()
        serving.join(patience())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that every Python accepts."""
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    return issue(file, "keyUsage=critical,keyCertSign,digitalSignature")


@pytest.fixture(scope="module")
def url(certificate: Path) -> Iterator[str]:
    """The API of a server with that certificate."""
    with served(certificate) as address:
        yield address


def offering(url: str, **changes: Any) -> Offering:
    return Offering.model_validate(
        {
            "name": "Test",
            "waldur_api_url": url,
            "waldur_api_token": "token",
            "waldur_offering_uuid": uuid4(),
            **changes,
        }
    )


@needs_openssl
def test_a_server_is_believed_on_the_word_of_the_sites_own_authority(
    url: str, certificate: Path
) -> None:
    with connect(offering(url, ca_file=str(certificate)), "report") as waldur:
        assert waldur.server_version() == "8.1.3"


@needs_openssl
def test_an_authority_that_was_replaced_counts_from_the_next_connection(
    url: str, certificate: Path, tmp_path: Path
) -> None:
    file = issue(tmp_path / "authority.pem", "keyUsage=critical,keyCertSign,digitalSignature")
    believing = offering(url, ca_file=str(file))
    with (
        connect(believing, "report") as waldur,
        pytest.raises(TemporaryError, match="is not trusted"),
    ):
        waldur.server_version()
    file.write_bytes(certificate.read_bytes())
    with connect(believing, "report") as waldur:
        assert waldur.server_version() == "8.1.3"


def test_https_to_a_port_of_http_says_which_scheme_to_write() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Versioned) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        address = f"https://127.0.0.1:{server.server_port}/api/"
        with (
            connect(offering(address), "report") as waldur,
            pytest.raises(
                TemporaryError, match=r"does not speak TLS .*waldur_api_url with http://"
            ),
        ):
            waldur.server_version()
        server.shutdown()
        serving.join(patience())


@needs_openssl
def test_a_proxy_that_is_reached_over_tls_is_checked_like_the_server(
    url: str, certificate: Path
) -> None:
    with a_proxy("https", "agent", "secret", certificate) as proxy:
        address = f"https://agent:secret@{proxy.address}"
        believing = offering(url, ca_file=str(certificate))
        believing.use_proxy(SecretStr(address))
        with connect(believing, "report") as waldur:
            assert waldur.server_version() == "8.1.3"
        doubting = offering(url)
        doubting.use_proxy(SecretStr(address))
        with (
            connect(doubting, "report") as waldur,
            pytest.raises(TemporaryError, match="is not trusted") as caught,
        ):
            waldur.server_version()
    assert proxy.targets == [url.split("/")[2]]
    assert "secret" not in str(caught.value)


@needs_openssl
def test_a_server_that_nobody_vouches_for_is_not_spoken_to(url: str) -> None:
    with (
        connect(offering(url), "report") as waldur,
        pytest.raises(TemporaryError, match=r"is not trusted .*ca_file"),
    ):
        waldur.server_version()


@needs_openssl
def test_an_authority_without_key_usage_is_to_be_reissued_not_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = httpx.create_ssl_context

    def strict() -> ssl.SSLContext:
        context = made()
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python does from 3.13 on
        return context

    monkeypatch.setattr("httpx.create_ssl_context", strict)
    file = issue(tmp_path / "authority.pem")
    of_server = ("basicConstraints=CA:FALSE", "authorityKeyIdentifier=keyid")
    with (
        served(issue(tmp_path / "server.pem", *of_server, signed_by=file)) as url,
        connect(offering(url, ca_file=str(file)), "report") as waldur,
        pytest.raises(TemporaryError, match=r"reissue the CA .*keyUsage=critical,keyCertSign"),
    ):
        waldur.server_version()


@needs_openssl
def test_without_verification_any_certificate_and_any_ca_file_will_do(url: str) -> None:
    unchecked = offering(url, verify_ssl=False, ca_file="/nowhere/authority.pem")
    with connect(unchecked, "report") as waldur:
        assert waldur.server_version() == "8.1.3"


@needs_openssl
def test_authorities_that_the_environment_names_are_enough(
    url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with connect(offering(url), "report") as waldur:
        assert waldur.server_version() == "8.1.3"


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
def test_a_ca_file_that_cannot_be_used_is_named_with_a_remedy(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PermanentError, match=r"ca_file .*authority\.pem.* PEM certificates"):
        Waldur("https://waldur.example.com", "token", authorities=str(file))


def test_authorities_of_the_environment_that_are_not_there_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/authority.pem")
    with pytest.raises(PermanentError, match="check SSL_CERT_FILE"):
        Waldur("https://waldur.example.com", "token")
