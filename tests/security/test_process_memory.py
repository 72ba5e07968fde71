"""Memory and environment of the process, which hold the token: no cores, and no looking in."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")

EACH_PROGRAM = """
import ctypes, importlib, importlib.metadata, json, os, resource, sys

print_to, found = os.dup(1), {}
programs = importlib.metadata.distribution("waldur-site-agent").entry_points
importlib.import_module("waldur_site_agent.cli.aliases")  # once for all children
for program in programs.select(group="console_scripts"):
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        found[program.name] = json.loads(os.fdopen(reading).read())
        os.waitpid(child, 0)
        continue
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = [program.name, "--help"]
    try:
        program.load()()
    except SystemExit:
        dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
        soft = resource.getrlimit(resource.RLIMIT_CORE)[0]
        of_commands = os.popen("ulimit -S -c").read().strip()
        os.write(writing, json.dumps([dumpable, soft, of_commands]).encode())
    os._exit(0)
os.write(print_to, json.dumps(found).encode())
"""


@pytest.mark.guarantee("security: Threat model")
def test_every_program_writes_no_core_and_lets_nobody_of_its_user_look_in() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EACH_PROGRAM], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout or "{}")
    assert len(found) == 12, done.stderr
    assert {name: values for name, values in found.items() if values != [0, 0, "0"]} == {}


SOMEBODY_OF_THE_SAME_USER = """
import ctypes, os, subprocess, sys

from waldur_site_agent.cli.entry import keep_memory_private

if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a change of the user has the same effect


def look_into(parent):
    for name in ("environ", "mem", "maps"):
        try:
            open(f"/proc/{parent}/{name}", "rb").close()
            print(name, "can be read")
        except PermissionError:
            print(name, "is closed")


def ask_a_child():
    sys.stdout.flush()
    parent = os.getpid()
    if not (child := os.fork()):
        look_into(parent)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)


ask_a_child()
keep_memory_private()
open("/proc/self/mounts").close()
os.listdir("/proc/self/fd")
ask_a_child()
# commands are as they always are
command = subprocess.run(["/bin/cat", "/proc/self/environ"], capture_output=True)
print("command", command.returncode == 0)
"""


@pytest.mark.guarantee("security: Threat model")
def test_another_process_of_the_same_user_cannot_read_memory_or_environment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOMEBODY_OF_THE_SAME_USER],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "WALDUR_API_TOKEN": "x" * 40},
    )
    said = done.stdout.splitlines()
    if "mem is closed" in said[:3] or not said:
        pytest.skip(f"this machine closes them anyway: {done.stderr}")
    names = ("environ", "mem", "maps")
    expected = [f"{name} can be read" for name in names] + [f"{name} is closed" for name in names]
    assert said == [*expected, "command True"], done.stderr
