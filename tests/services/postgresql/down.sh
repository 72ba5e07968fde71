#!/bin/sh
# Stops what up.sh started, by its pid file alone. With --purge also removes its directory.
set -u

SERVICE=postgresql
DIR=${WSA_POSTGRESQL_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-postgresql}
. "$(dirname "$0")/../common.sh"
stop postgres -INT
if [ "${1:-}" = --purge ] && [ -e "$DIR/db/PG_VERSION" ] && [ -d "$DIR/run" ]; then
    rm -rf "$DIR"
fi
exit 0
