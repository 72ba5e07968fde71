"""Commands of a simulated cluster that lives in the test's own process.

The simulator's own executables start an interpreter with the whole simulator for every command.
These pass their words to the test and print what it answers, in a tenth of the time.
"""

from __future__ import annotations

import json
import socketserver
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from waldur_site_agent.backends.simulation import HungError

_EXECUTABLE = """\
#!{python} -IS
import json, socket, sys

with socket.socket(socket.AF_UNIX) as test:
    test.connect({address!r})
    test.sendall(json.dumps([{program!r}, *sys.argv[1:]]).encode() + b"\\n")
    with test.makefile() as answer:
        code, out, err = json.loads(answer.readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class Tool(Protocol):
    """A simulated tool, or what stands before one."""

    def run(self, argv: Sequence[str], /) -> tuple[int, str, str]:
        """Exit code and both outputs of a command; ``HungError`` if it hangs."""
        ...


@contextmanager
def commands_of(tool: Tool, programs: Sequence[str], directory: Path) -> Iterator[None]:
    """Have executables in a directory, which work while the body runs."""
    never = threading.Event()

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            argv = json.loads(self.rfile.readline())
            try:
                answer = tool.run(argv)
            except HungError:
                never.wait()  # until the command is killed, or the test ends
                return
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    with tempfile.TemporaryDirectory(prefix="wsa-") as place:  # paths of sockets are short
        address = f"{place}/commands"
        server = socketserver.ThreadingUnixStreamServer(address, Answering)
        server.daemon_threads, server.block_on_close = True, False
        directory.mkdir(exist_ok=True)
        for program in programs:
            text = _EXECUTABLE.format(python=sys.executable, address=address, program=program)
            (directory / program).write_text(text)
            (directory / program).chmod(0o755)
        serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        try:
            yield
        finally:
            never.set()
            server.shutdown()
            server.server_close()
