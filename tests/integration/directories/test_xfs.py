"""Quotas on a real XFS: on a loop device, or where the kernel has no such quotas in another kernel.

Debian's package user-mode-linux is a kernel that runs as an ordinary process, with the files of
this machine and an image as its disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
_SIZE = 400 * 1024**2
_PATIENCE_SECONDS = 300
_TOOLS = ("mkfs.xfs", "xfs_quota", "linux.uml")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        not all(map(shutil.which, _TOOLS)),
        reason="apt-get install xfsprogs user-mode-linux",
    ),
]

_INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root WSA_XFS=/mnt
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mount -o usrquota,prjquota /dev/ubda /mnt
cd {root}
{python} -m pytest -q -p no:cacheprovider -p no:xdist -c pyproject.toml {file} > {output} 2>&1
echo "exit code $?" >> {output}
umount /mnt
halt -f
"""


def test_quotas_and_directories_hold_on_a_real_xfs(tmp_path: Path) -> None:
    image, init, output = tmp_path / "xfs.img", tmp_path / "init", tmp_path / "output"
    image.touch()
    os.truncate(image, _SIZE)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)  # noqa: S607 - wherever it is
    init.write_text(
        _INIT.format(root=ROOT, python=sys.executable, file=HERE / "on_xfs.py", output=output)
    )
    init.chmod(0o755)
    kernel = [
        *("linux.uml", "mem=512M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"),
        *(f"ubd0={image}", f"init={init}", "con=null", "con0=null,fd:1"),
    ]
    done = subprocess.run(
        kernel, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
    )
    said = output.read_text() if output.exists() else done.stdout[-2000:]
    assert said.rstrip().endswith("exit code 0"), said
    assert " passed" in said
