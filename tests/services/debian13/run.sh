#!/bin/sh
# Runs a command in a Debian 13 of its own, in a copy of this project: for tests against other versions
# of Slurm, RabbitMQ, Python and systemd than this machine has.
#
#   run.sh [--services] [--package NAME]... COMMAND...
#
# --services installs what the scripts in this directory's neighbours would install: Slurm, RabbitMQ, databases.
# The Debian is built by debootstrap in a directory, from the mirror that this machine uses, with its
# proxies and certificate authorities. The command runs there in mount and process namespaces of its
# own; only the network is shared. The directory is removed at the end, after a failure or Ctrl+C, too.
# Nothing is installed on this machine: debootstrap is unpacked next to the directory if it is missing.
#
#   TMPDIR             where the directory is made; needs 4 GB (/var/tmp)
#   WSA_DEBIAN_MIRROR  the mirror (the one in /etc/apt, or http://deb.debian.org/debian)
#   WSA_DEBIAN_CACHE   a directory that keeps the installed system for the next time (none)
#
# Exits with the command's code, or with 3 if this machine cannot run it (no root, no namespaces,
# no mirror): then it says why.
set -eu

RELEASE=trixie
BASE='python3 python3-venv make procps iproute2 curl'    # what `make test` asks for
PROJECT=$(cd "$(dirname "$0")/../../.." && pwd)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
PATH=/usr/sbin:/sbin:/usr/bin:/bin:$PATH
export PATH

say() { echo "debian 13: $*" >&2; }
cannot() { say "cannot run here: $*"; exit 3; }

# the mirror of the first Debian source of this machine
mirror() {
    found=${WSA_DEBIAN_MIRROR:-}
    [ -n "$found" ] || found=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources \
        2>/dev/null | head -n 1)
    [ -n "$found" ] || found=$(sed -n 's/^deb \(\[[^]]*\] *\)\{0,1\}\([^ ]*\/debian\/\{0,1\}\) .*/\2/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
    echo "${found:-http://deb.debian.org/debian}"
}

check_machine() {
    [ "$(id -u)" = 0 ] || cannot "must be root"
    for tool in unshare setpriv pivot_root apt-get dpkg-deb wget gpgv tar pkill; do
        command -v $tool >/dev/null || cannot "there is no $tool"
    done
    [ -r $KEYRING ] || cannot "there is no $KEYRING (package debian-archive-keyring)"
    unshare --mount --pid --fork --propagation private mount -t tmpfs none /mnt 2>/dev/null ||
        cannot "no namespaces, or no mounts in them (a container without privileges?)"
    free=$(df -Pk "$PLACE" | awk 'END { print int($4 / 1024 / 1024) }')
    [ "$free" -ge 4 ] || cannot "$PLACE has $free GB left, 4 are needed; TMPDIR names another directory"
}

# What runs in namespaces is killed with them by ending its first process: here after a signal, and by
# the kernel if this shell is killed. A shell's background commands ignore Ctrl+C, those in there must not.
in_namespaces() { # FUNCTION ARGUMENTS...
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private \
        env --default-signal=INT,QUIT sh "$0" --in-namespaces "$@" </dev/null &
    entered=$!
    code=0
    wait $entered || code=$?
    entered=
    return $code
}

leave() {
    trap '' INT TERM HUP
    if [ -n "${entered:-}" ]; then
        pkill -KILL -P "$entered" || true
        wait "$entered" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$WORK"
}

# what a killed run left
remove_abandoned() {
    for old in "$PLACE"/waldur-site-agent-debian13.*; do
        [ -e "$old/pid" ] || continue
        kill -0 "$(cat "$old/pid")" 2>/dev/null ||
            { rm -rf --one-file-system "$old/root" && rm -rf "$old"; } || true
    done
}

find_debootstrap() {
    DEBOOTSTRAP=debootstrap
    command -v debootstrap >/dev/null && return 0
    mkdir -p "$WORK/apt/partial" "$WORK/lists/partial" "$WORK/archives/partial"
    (
        cd "$WORK/apt"
        own="-q -o Dir::State::Lists=$WORK/lists -o Dir::Cache=$WORK/apt -o APT::Sandbox::User=root"
        # word splitting is wanted: one argument per option
        # shellcheck disable=SC2086
        { apt-get $own update && apt-get $own download debootstrap; } >"$LOG" 2>&1
        dpkg-deb -x debootstrap_*.deb "$WORK/tool"
    ) || { tail -n 3 "$LOG" >&2; cannot "debootstrap cannot be downloaded"; }
    DEBOOTSTRAP="$WORK/tool/usr/sbin/debootstrap"
    DEBOOTSTRAP_DIR="$WORK/tool/usr/share/debootstrap"
    export DEBOOTSTRAP_DIR
}

# in namespaces: debootstrap mounts /proc
bootstrap() { # PROGRAM MIRROR
    mount -t proc proc /proc
    "$1" --variant=minbase --include=ca-certificates --keyring=$KEYRING $RELEASE "$ROOT" "$2"
}

# what this machine needs to reach the mirror and the package index
carry_in_settings() {
    cp -L /etc/resolv.conf /etc/hosts "$ROOT/etc/"
    for file in /etc/pip.conf /etc/uv/uv.toml; do
        [ ! -e $file ] || install -D -m 644 $file "$ROOT$file"
    done
    mkdir -p "$ROOT/usr/local/share/ca-certificates"
    cp -RL /usr/local/share/ca-certificates/. "$ROOT/usr/local/share/ca-certificates/" 2>/dev/null || true
    apt-config dump | grep -i '^Acquire::[^ ]*Proxy' >"$ROOT/etc/apt/apt.conf.d/90-proxies" || true
}

install_packages() { # PACKAGE...
    export DEBIAN_FRONTEND=noninteractive
    update-ca-certificates >&2
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d      # packages must not start their services
    chmod 755 /usr/sbin/policy-rc.d
    apt-get update -q >&2
    apt-get install -y -q --no-install-recommends "$@" >&2
    rm -f /usr/sbin/policy-rc.d
}

# in namespaces: make the directory the whole file system, with devices and a process table of its own
enter() { # COMMAND...
    mount --bind "$ROOT" "$ROOT"
    mount -t proc proc "$ROOT/proc"
    mount --rbind /sys "$ROOT/sys"
    mount -t tmpfs -o mode=755 dev "$ROOT/dev"
    for device in null zero full random urandom tty; do
        : >"$ROOT/dev/$device"
        mount --bind "/dev/$device" "$ROOT/dev/$device"
    done
    ln -s /proc/self/fd "$ROOT/dev/fd"
    ln -s /proc/self/fd/0 "$ROOT/dev/stdin"
    ln -s /proc/self/fd/1 "$ROOT/dev/stdout"
    ln -s /proc/self/fd/2 "$ROOT/dev/stderr"
    mkdir "$ROOT/dev/pts" "$ROOT/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$ROOT/dev/pts"
    ln -s pts/ptmx "$ROOT/dev/ptmx"
    mount -t tmpfs -o mode=1777 shm "$ROOT/dev/shm"
    mkdir -p "$ROOT/oldroot"
    cd "$ROOT"
    pivot_root . oldroot
    cd /
    umount -l /oldroot
    rmdir /oldroot
}

# in namespaces: run a command in the root; not by exec, the first process has to reap orphans
run_inside() { # COMMAND...
    enter
    authorities=/etc/ssl/certs/ca-certificates.crt
    set -- "SSL_CERT_FILE=$authorities" "PIP_CERT=$authorities" "$@"
    for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z_0-9]*\)=.*/\1/p' |
        grep -Ei '^(https?_proxy|no_proxy|all_proxy|pip_.*|uv_.*|wsa_.*|ci|seeds|first|jobs|term)$'); do
        eval "value=\$$name"
        set -- "$name=$value" "$@"
    done
    env -i --chdir="$COPY" HOME=/root LANG=C.UTF-8 \
        PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" || exit $?
}

install_inside() { # PACKAGE...
    enter
    install_packages "$@"
}

print_versions() { # PACKAGE...
    enter
    . /etc/os-release
    say "$PRETTY_NAME with $(dpkg-query -W -f='${Package} ${Version}, ' "$@" | sed 's/, $//')"
}

# from the cache or by debootstrap
build() { # PACKAGE...
    address=$(mirror)
    key=$(printf '%s\n' "$address" "$@" | cat - "$0" | sha256sum | cut -c1-16)
    kept=${WSA_DEBIAN_CACHE:+$WSA_DEBIAN_CACHE/$RELEASE-$key.tar}
    if [ -n "$kept" ] && [ -e "$kept" ]; then
        say "unpacking $kept"
        in_namespaces tar -C "$ROOT" -xpf "$kept" --numeric-owner
        carry_in_settings
        return
    fi
    find_debootstrap
    say "building $RELEASE from $address"
    in_namespaces bootstrap "$DEBOOTSTRAP" "$address" >"$LOG" 2>&1 ||
        { tail -n 3 "$LOG" >&2; cannot "debootstrap failed"; }
    carry_in_settings
    say "installing $*"
    in_namespaces install_inside "$@" >"$LOG" 2>&1 || { tail -n 5 "$LOG" >&2; cannot "apt-get failed"; }
    rm -f "$ROOT"/var/cache/apt/archives/*.deb
    [ -n "$kept" ] || return 0
    mkdir -p "$WSA_DEBIAN_CACHE"
    in_namespaces tar -C "$ROOT" -cf "$kept.$$" --numeric-owner . && mv "$kept.$$" "$kept"
}

copy_project() {
    mkdir -p "$ROOT$COPY"
    tar -C "$PROJECT" -cf - --exclude=./.git --exclude=./.venv --exclude=./site --exclude=./dist \
        --exclude='./.*_cache' --exclude=./.hypothesis --exclude=__pycache__ . |
        tar -C "$ROOT$COPY" -xf - --no-same-owner
}

if [ "${1:-}" = --in-namespaces ]; then
    shift
    "$@"
    exit
fi

packages=$BASE
here=$(dirname "$0")
while :; do
    case ${1:-} in
        --package) packages="$packages $2"; shift 2 ;;
        --services)
            for service in slurm rabbitmq postgresql mariadb systemd; do
                packages="$packages $("$here/../$service/up.sh" packages)"
            done
            shift ;;
        -* | '') sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
        *) break ;;
    esac
done

PLACE=${TMPDIR:-/var/tmp}
check_machine
remove_abandoned
WORK=$(mktemp -d "$PLACE/waldur-site-agent-debian13.XXXXXX")
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
echo $$ >"$WORK/pid"
ROOT=$WORK/root
LOG=$WORK/log
COPY=/usr/src/waldur-site-agent
export WORK ROOT COPY
mkdir "$ROOT"
chmod 755 "$WORK" "$ROOT"
# word splitting is wanted: one argument per package
# shellcheck disable=SC2086
build $packages
copy_project
# shellcheck disable=SC2086
in_namespaces print_versions $packages
in_namespaces run_inside "$@"
