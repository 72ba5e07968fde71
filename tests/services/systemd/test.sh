#!/bin/sh
# Runs tests/systemd under a real systemd: that of Debian 13, in a root directory and in namespaces of
# its own, which are gone afterwards; then tests that they are. See debian13/run.sh for what it needs and
# for its variables. Where it cannot run, it says so; with CI or REQUIRE_SERVICES it fails then.
#
#   test.sh [ARGUMENT OF pytest]...      with arguments: only what they name
set -eu
here=$(dirname "$0")

hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
not_run() {
    echo "NOT RUN: the tests that need a real systemd: $*" >&2
    [ -z "${CI:-}${REQUIRE_SERVICES:-}" ] || exit 3
    exit 0
}
[ "$(id -u)" = 0 ] || not_run "must be root"
[ -n "$hierarchy" ] || not_run "no cgroup2 file system is mounted"
[ -w "$hierarchy" ] || not_run "$hierarchy cannot be written"

running=
finish() {
    trap '' INT TERM HUP
    if [ -n "$running" ]; then
        kill -TERM "$running" 2>/dev/null || true
        wait "$running" || true
    fi
    for _ in $(seq 100); do # the machine may have been killed before it could remove its cgroup
        find "$WSA_SYSTEMD_CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -d "$WSA_SYSTEMD_CGROUP" ] || break
        sleep 0.1
    done
    [ -z "${cache:-}" ] || rm -rf "$cache"
}
# a command in the background ignores Ctrl+C by default
run() {
    env --default-signal=INT,QUIT "$@" &
    running=$!
    code=0
    wait $running || code=$?
    running=
    return $code
}
for old in "$hierarchy"/waldur-site-agent-*; do # of a run that was killed
    [ ! -d "$old" ] || [ -d "/proc/${old##*-}" ] || find "$old" -depth -type d -exec rmdir {} + || true
done
export WSA_SYSTEMD_CGROUP="$hierarchy/waldur-site-agent-$$"
mkdir "$WSA_SYSTEMD_CGROUP" || not_run "cannot make a cgroup"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

everything=
if [ $# = 0 ]; then
    everything=1
    set -- tests/systemd
    if [ -z "${WSA_DEBIAN_CACHE:-}" ]; then
        cache=$(mktemp -d "${TMPDIR:-/var/tmp}/waldur-site-agent-cache.XXXXXX")
        export WSA_DEBIAN_CACHE="$cache"
    fi
fi
run "$here/../debian13/run.sh" \
    --package systemd-sysv --package dbus --package sudo --package logrotate \
    tests/services/systemd/inside.sh "$@" || { [ $code != 3 ] || not_run "the reason is above"; exit $code; }
[ -z "$everything" ] || run "$here/../../../.venv/bin/pytest" -q -p no:cacheprovider \
    "$here/../../systemd/test_machine.py"
