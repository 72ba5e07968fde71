#!/bin/sh
# Stops what up.sh started, by its pid file alone. With --purge also removes its directory.
set -u

SERVICE=mariadb
DIR=${WSA_MARIADB_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-mariadb}
. "$(dirname "$0")/../common.sh"
stop mariadbd
if [ "${1:-}" = --purge ] && [ -e "$DIR/db/mysql" ] && [ -d "$DIR/run" ]; then
    rm -rf "$DIR"
fi
exit 0
