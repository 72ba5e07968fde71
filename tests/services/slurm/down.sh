#!/bin/sh
# Stops what up.sh started, by its pid files alone. With --purge also removes its directory and
# the operating-system users it made.
set -u

DIR=${WSA_SLURM_DIR:-${TMPDIR:-/tmp}/waldur-site-agent-slurm}

stop() {
    pid=$(cat "$DIR/run/$1.pid" 2>/dev/null) || return 0
    rm -f "$DIR/run/$1.pid"
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 0
    kill -CONT "$pid"          # a test may have frozen it
    kill "$pid"
    tries=0
    while [ -d "/proc/$pid" ] && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    [ ! -d "/proc/$pid" ] || kill -9 "$pid"
}

for daemon in slurmd slurmctld slurmdbd mariadbd munged; do stop $daemon; done

if [ "${1:-}" = --purge ]; then
    if [ -e "$DIR/etc/slurm.conf" ] && grep -q '^ClusterName=wsatest$' "$DIR/etc/slurm.conf"; then
        rm -rf "$DIR"
    fi
    number=1
    while id "wsatest$number" >/dev/null 2>&1; do
        userdel "wsatest$number" 2>/dev/null || break
        number=$((number + 1))
    done
    rm -rf "${TMPDIR:-/tmp}/waldur-site-agent-homes"
fi
exit 0
