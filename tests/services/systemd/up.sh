#!/bin/sh
# Installs from Debian what the tests of the services ask: systemd-analyze, and sudo for the variant
# that makes home directories through it. Nothing is started.
# `up.sh packages` prints only the names of those packages.
set -eu
[ "${1:-}" != packages ] || { echo "systemd sudo"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "must be root" >&2; exit 2; }
missing=
command -v systemd-analyze >/dev/null || missing="$missing systemd"
command -v visudo >/dev/null || missing="$missing sudo"
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || { echo "no apt-get; install:$missing" >&2; exit 3; }
exec 9>"${TMPDIR:-/tmp}/waldur-site-agent-slurm.setup"    # the one that installs Slurm, too
flock 9
export DEBIAN_FRONTEND=noninteractive
# word splitting is wanted: one argument per package
# shellcheck disable=SC2086
apt-get update -q >&2 && apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 $missing >&2
