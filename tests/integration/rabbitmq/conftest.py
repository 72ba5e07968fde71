"""A virtual host of its own for each test, and TLS in front of the broker."""

from __future__ import annotations

import itertools
import os
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.patience import patience
from integration.broker import WALDURS_ARGUMENTS, RealRabbitMQ
from waldur_site_agent.events.broker import Subscription

PASSWORD = "5ecret:of\\the-broker"

_numbers = itertools.count(1)


@dataclass
class Host:
    """A virtual host with one login, as Waldur makes them."""

    broker: RealRabbitMQ
    vhost: str
    login: str

    def queue(self, name: str = "orders") -> str:
        self.broker.make_queue(self.vhost, name, WALDURS_ARGUMENTS)
        return name

    def publish(self, queue: str, *bodies: bytes) -> None:
        self.broker.publish(self.vhost, queue, *bodies)

    def subscription(self, *queues: str, declared: bool = True) -> Subscription:
        return Subscription(self.vhost, self.login, PASSWORD, queues, declared)

    def waiting(self, queue: str) -> tuple[int, int]:
        return self.broker.waiting(self.vhost)[queue]


@pytest.fixture
def host(real_rabbitmq: RealRabbitMQ) -> Iterator[Host]:
    name = f"t{os.getpid()}n{next(_numbers)}"
    made = Host(real_rabbitmq, f"vhost-{name}", f"login-{name}")
    real_rabbitmq.register(made.vhost, made.login, PASSWORD)
    yield made
    real_rabbitmq.start()
    real_rabbitmq.delete_vhost(made.vhost)
    real_rabbitmq.delete_user(made.login)


@dataclass(frozen=True)
class Authority:
    """A private certificate authority, and a certificate of it for 127.0.0.1."""

    ca_file: Path
    certificate: Path
    key: Path

    @contextmanager
    def in_front_of(self, port: int) -> Iterator[int]:
        """Take TLS connections at a port and pass them on, decrypted."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=_take, args=(listener, context, port), daemon=True).start()
            yield listener.getsockname()[1]
            listener.shutdown(socket.SHUT_RDWR)


def _take(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            taken, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(taken, context, port), daemon=True).start()


def _serve(taken: socket.socket, context: ssl.SSLContext, port: int) -> None:
    try:
        with (
            taken,
            context.wrap_socket(taken, server_side=True) as client,
            socket.create_connection(("127.0.0.1", port)) as broker,
        ):
            _pass_on(client, broker)
    except OSError:
        return  # the client did not trust the certificate, or went away


def _pass_on(client: ssl.SSLSocket, broker: socket.socket) -> None:
    """Relay both ways in one thread, because two must not share a TLS connection."""
    while True:
        ready = [client] if client.pending() else select.select([client, broker], [], [])[0]
        for source in ready:
            piece = source.recv(65536)
            if not piece:
                return
            (broker if source is client else client).sendall(piece)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    there = tmp_path_factory.mktemp("authority")
    key, certificate, request = there / "key.pem", there / "certificate.pem", there / "request"
    ca_key, ca_file, names = there / "ca-key.pem", there / "ca.pem", there / "names"
    extensions = "subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n"
    names.write_text(extensions, encoding="ascii")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    ca = ("-x509", "-days", "2", "-subj", "/CN=A site's own authority", *usage)
    _openssl(*new, *ca, "-keyout", str(ca_key), "-out", str(ca_file))
    _openssl(*new, "-subj", "/CN=broker", "-keyout", str(key), "-out", str(request))
    signed = ("-CA", str(ca_file), "-CAkey", str(ca_key), "-CAcreateserial", "-days", "2")
    files = ("-in", str(request), "-out", str(certificate), "-extfile", str(names))
    _openssl("x509", "-req", *files, *signed)
    return Authority(ca_file, certificate, key)


def _openssl(*words: str) -> None:
    subprocess.run(
        ["/usr/bin/openssl", *words], check=True, capture_output=True, timeout=patience()
    )
