#!/bin/sh
# In the root directory that test.sh has made: installs the agent as docs/install.md says, boots a
# systemd, and runs pytest in it with the arguments.
set -eu
project=$(pwd)
make -s .venv/.ready
uv=.venv/uv/bin/uv
$uv venv --quiet --clear --python /usr/bin/python3 /opt/waldur-site-agent
# the packages of this checkout, without links into it
VIRTUAL_ENV=/opt/waldur-site-agent $uv pip install --quiet --no-sources \
    . ./plugins/slurm ./plugins/basic_username_management
exec tests/services/systemd/machine.sh / --setenv=container=wsa --working-directory="$project" \
    --setenv="WSA_TEST_PATIENCE=${WSA_TEST_PATIENCE:-}" --setenv="CI=${CI:-}" \
    "$project/.venv/bin/pytest" -q -p no:cacheprovider --ignore tests/systemd/test_machine.py "$@"
