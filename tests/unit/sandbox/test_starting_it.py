"""The sandbox as a command."""

from __future__ import annotations

import socket

import pytest

from waldur_site_agent_sandbox.commands import serve


def test_a_port_that_is_taken_is_named_with_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert serve(["--port", str(port)], "sandbox") == 2
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert "--port 0 takes any free port" in said
