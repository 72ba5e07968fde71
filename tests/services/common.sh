# Sourced by the scripts of the test services: packages, processes, waiting. Needs DIR and SERVICE.

PATH=/usr/sbin:/sbin:/usr/bin:/bin:$PATH
export PATH

say() { echo "$SERVICE test service: $*" >&2; }

# one_at_a_time COMMAND: services that start side by side share the package manager
one_at_a_time() {
    exec 9<"${TMPDIR:-/tmp}"      # the directory itself: no file of a lock stays
    flock 9
    "$@"
    exec 9>&-
}

install_packages() {
    missing=
    for package in $PACKAGES; do
        dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || { say "no apt-get; install:$missing"; exit 3; }
    say "installing$missing"
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e $policy ]; then       # packages must not start the services they bring
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=$policy
    fi
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # word splitting is wanted: one argument per package
    # shellcheck disable=SC2086
    { apt-get -o DPkg::Lock::Timeout=600 update -q &&
        apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends $missing
    } >"$log" 2>&1 || { say "apt-get failed; see $log"; exit 3; }
    rm -f "$log"
    # now, while the others wait: one of them may make that file for itself
    [ -z "$made" ] || { rm -f "$made"; trap - EXIT; }
}

# make_certificate OWNER: in $DIR/tls, for 127.0.0.1, signed by itself
make_certificate() {
    [ ! -s "$DIR/tls/key.pem" ] || return 0
    mkdir -p "$DIR/tls"
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=test database' \
        -addext 'subjectAltName=IP:127.0.0.1' -addext 'keyUsage=digitalSignature,keyCertSign' \
        -keyout "$DIR/tls/key.pem" -out "$DIR/tls/certificate.pem" 2>/dev/null
    chown -R "$1": "$DIR/tls"
    chmod 600 "$DIR/tls/key.pem"
}

# is_up NAME: the pid file names a living process of that command
is_up() {
    pid=$(head -n 1 "$DIR/run/$1.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]
}

# wait_until WHAT COMMAND...: 90 seconds on an idle machine, WSA_TEST_PATIENCE times as long
wait_until() {
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        read -r load _ </proc/loadavg
        patience=${WSA_TEST_PATIENCE:-1}
        [ $tries -lt $((450 * ${patience%%.*} * (1 + ${load%%.*} / $(nproc)))) ] ||
            { say "$what did not come up; see $DIR/log"; exit 1; }
        sleep 0.2
    done
}

# stop NAME [SIGNAL]: what is_up NAME says, and wait for its end
stop() {
    is_up "$1" || { rm -f "$DIR/run/$1.pid"; return 0; }
    kill -CONT "$pid"               # a test may have frozen it
    kill "${2:--TERM}" "$pid"
    tries=0
    while [ -d "/proc/$pid" ] && [ $tries -lt 300 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    [ ! -d "/proc/$pid" ] || kill -9 "$pid"
    rm -f "$DIR/run/$1.pid"
}
