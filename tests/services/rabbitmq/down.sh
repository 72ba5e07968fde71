#!/bin/sh
# Stops what up.sh started, by its pid files alone. With --purge also removes its directory.
set -u

DIR=${WSA_RABBITMQ_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-rabbitmq}

stop() {
    pid=$(cat "$DIR/run/$1.pid" 2>/dev/null) || return 0
    rm -f "$DIR/run/$1.pid"
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 0
    kill -CONT "$pid"          # a test may have frozen it
    kill "$pid"
    tries=0
    while [ -d "/proc/$pid" ] && [ $tries -lt 300 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    [ ! -d "/proc/$pid" ] || kill -9 "$pid"
}

for daemon in beam.smp epmd; do stop $daemon; done

if [ "${1:-}" = --purge ] && grep -q 'RABBITMQ_NODENAME=wsatest@' "$DIR/etc/environment" 2>/dev/null; then
    rm -rf "$DIR"
fi
exit 0
