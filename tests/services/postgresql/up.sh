#!/bin/sh
# Starts a PostgreSQL for the tests of several agents: as root on a Debian-like machine without systemd.
#
# It lives below one directory and listens on 127.0.0.1 on a port of its own; a site's own PostgreSQL is
# never touched. Run again, it starts the server only if it is not up.
#
#   WSA_POSTGRESQL_DIR    where it lives ($TMPDIR/waldur-site-agent-postgresql)
#   WSA_POSTGRESQL_PORT   its port (28817)
#
# User and database are both named agent, the password is s3cret/word. Prints a line `URL=...` when it
# is ready; a certificate for 127.0.0.1 is in tls/certificate.pem. `up.sh packages` prints only the names of the Debian packages that it needs.
set -eu

PACKAGES='postgresql openssl'
[ "${1:-}" != packages ] || { echo "$PACKAGES"; exit 0; }

SERVICE=postgresql
DIR=${WSA_POSTGRESQL_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-postgresql}
PORT=${WSA_POSTGRESQL_PORT:-28817}
. "$(dirname "$0")/../common.sh"
[ "$(id -u)" = 0 ] || { say "must be root"; exit 2; }
cd /

as_postgres() { runuser -u postgres -- "$@"; }
sql() { as_postgres "$BIN/psql" -qAt -v ON_ERROR_STOP=1 -h "$DIR/run" -p "$PORT" -d "${2:-postgres}" -c "$1"; }

make_cluster() {
    [ -e "$DIR/db/PG_VERSION" ] && return 0
    mkdir -p "$DIR/db" "$DIR/log" "$DIR/run"
    chown postgres: "$DIR" "$DIR/db" "$DIR/log" "$DIR/run"
    as_postgres "$BIN/initdb" -D "$DIR/db" -A trust --no-sync >"$DIR/log/initdb.out" 2>&1 ||
        { say "initdb failed; see $DIR/log"; exit 1; }
    printf 'local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n' >"$DIR/db/pg_hba.conf"
}

one_at_a_time install_packages
BIN=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
make_cluster
make_certificate postgres
if ! is_up postgres; then
    setsid runuser -u postgres -- "$BIN/postgres" -D "$DIR/db" -p "$PORT" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories="$DIR/run" -c external_pid_file="$DIR/run/postgres.pid" \
        -c max_connections=60 -c shared_buffers=16MB -c fsync=off -c autovacuum=off -c log_connections=on \
        -c ssl=on -c ssl_cert_file="$DIR/tls/certificate.pem" -c ssl_key_file="$DIR/tls/key.pem" \
        </dev/null >>"$DIR/log/postgres.out" 2>&1 &
    wait_until postgres sql 'SELECT 1'
    sql "SELECT 1 FROM pg_roles WHERE rolname = 'agent'" | grep -q 1 || {
        sql "CREATE ROLE agent LOGIN PASSWORD 's3cret/word'"
        sql "CREATE DATABASE agent OWNER agent"
    }
fi
wait_until postgres is_up postgres
echo "URL=postgresql://agent:s3cret%2Fword@127.0.0.1:$PORT/agent"
