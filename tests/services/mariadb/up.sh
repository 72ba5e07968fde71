#!/bin/sh
# Starts a MariaDB for the tests of several agents: as root on a Debian-like machine without systemd.
#
# It lives below one directory and listens on 127.0.0.1 on a port of its own; a site's own MariaDB is
# never touched. Run again, it starts the server only if it is not up.
#
#   WSA_MARIADB_DIR    where it lives ($TMPDIR/waldur-site-agent-mariadb)
#   WSA_MARIADB_PORT   its port (28917)
#
# User and database are both named agent, the password is s3cret/word. Prints a line `URL=...` when it
# is ready; a certificate for 127.0.0.1 is in tls/certificate.pem. `up.sh packages` prints only the names of the Debian packages that it needs.
set -eu

PACKAGES='mariadb-server openssl'
[ "${1:-}" != packages ] || { echo "$PACKAGES"; exit 0; }

SERVICE=mariadb
DIR=${WSA_MARIADB_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-mariadb}
PORT=${WSA_MARIADB_PORT:-28917}
. "$(dirname "$0")/../common.sh"
[ "$(id -u)" = 0 ] || { say "must be root"; exit 2; }
cd /

OWN="--no-defaults --user=mysql --datadir=$DIR/db --socket=$DIR/run/socket --pid-file=$DIR/run/mariadbd.pid"
sql() { mariadb --no-defaults --socket="$DIR/run/socket" -u root -e "$1"; }

one_at_a_time install_packages
mkdir -p "$DIR/log" "$DIR/run"
chown mysql: "$DIR/log" "$DIR/run"
# shellcheck disable=SC2086
[ -d "$DIR/db/mysql" ] || mariadb-install-db $OWN --skip-test-db --auth-root-authentication-method=normal \
    >"$DIR/log/install.out" 2>&1 || { say "mariadb-install-db failed; see $DIR/log"; exit 1; }
make_certificate mysql
if ! is_up mariadbd; then
    # shellcheck disable=SC2086
    setsid mariadbd $OWN --port="$PORT" --bind-address=127.0.0.1 --skip-name-resolve \
        --innodb-buffer-pool-size=16M --innodb-flush-log-at-trx-commit=0 --skip-log-bin \
        --ssl-cert="$DIR/tls/certificate.pem" --ssl-key="$DIR/tls/key.pem" \
        </dev/null >>"$DIR/log/mariadbd.out" 2>&1 &
    wait_until mariadbd sql 'SELECT 1'
    sql "CREATE DATABASE IF NOT EXISTS agent;
         CREATE USER IF NOT EXISTS 'agent'@'127.0.0.1' IDENTIFIED BY 's3cret/word';
         GRANT ALL ON agent.* TO 'agent'@'127.0.0.1';"
fi
wait_until mariadbd is_up mariadbd
echo "URL=mysql://agent:s3cret%2Fword@127.0.0.1:$PORT/agent"
