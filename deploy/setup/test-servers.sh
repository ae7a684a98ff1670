#!/bin/bash
# Installs the real servers and the browser that tests talk to, where they are missing and it is allowed (root or sudo without a
# password). No service is started or enabled: tests start their own on free ports. Where it is not allowed, the tests concerned are
# skipped and this says which; with CI=true that is an error. LIQMON_NO_APT=1 leaves the system alone.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

# program|package|tests that are skipped without it
servers=(
    "mosquitto|mosquitto|MQTT delivery and broker failures"
    "mosquitto_sub|mosquitto-clients|MQTT messages as other clients see them"
    "promtool|prometheus|metrics lint, alert rules and dashboard queries"
    "prometheus-alertmanager|prometheus-alertmanager|Alertmanager delivery and its failures"
    "chromium|chromium|the live page in a browser"
    "chromedriver|chromium-driver|the live page in a browser"
)

list_missing() {
    local server
    for server in "${servers[@]}"; do
        if ! command -v "${server%%|*}" >/dev/null 2>&1; then
            printf '%s\n' "$server"
        fi
    done
}

as_root=()
may_install() {
    if [[ -n "${LIQMON_NO_APT:-}" ]] || ! command -v apt-get >/dev/null 2>&1; then
        return 1
    fi
    if [[ $(id -u) -ne 0 ]]; then
        command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
}

policy=/usr/sbin/policy-rc.d
made_policy=no
log=$(mktemp)
cleanup() {
    rm -f "$log"
    if [[ $made_policy == yes ]]; then
        "${as_root[@]}" rm -f "$policy"
    fi
}
trap cleanup EXIT

apt() {
    # Short timeouts and few retries: without a network this has to give up, not to hang.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 \
        -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 "$@" >>"$log" 2>&1
}

install_packages() {
    if [[ ! -e $policy ]]; then
        # Debian starts a service as soon as it is installed, unless this file says no (exit status 101).
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        made_policy=yes
        "${as_root[@]}" chmod 755 "$policy"
    fi
    # The lists may be missing or old; when they cannot be renewed, the install may still work from what is there.
    apt update || true
    local status=0
    apt install --yes --no-install-recommends "$@" || status=$?
    # Nor shall they start at the next boot. Without systemd there is nothing to disable.
    local service
    for service in mosquitto prometheus prometheus-alertmanager; do
        if [[ " $* " == *" $service "* ]]; then
            "${as_root[@]}" systemctl --quiet disable "$service.service" >>"$log" 2>&1 || true
        fi
    done
    return "$status"
}

mapfile -t missing < <(list_missing)
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi
if may_install; then
    packages=()
    for server in "${missing[@]}"; do
        package=${server#*|}
        packages+=("${package%%|*}")
    done
    echo "Installing for the tests, without starting any service: ${packages[*]} (LIQMON_NO_APT=1 leaves the system alone)"
    if ! install_packages "${packages[@]}"; then
        echo "apt-get failed:"
        tail -n 15 "$log"
    fi
    mapfile -t missing < <(list_missing)
fi
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi
echo "Not installed, so these tests will be skipped:"
for server in "${missing[@]}"; do
    IFS='|' read -r program package tests <<<"$server"
    echo "  $tests (needs $program, Debian package $package)"
done
if [[ "${CI:-}" == true ]]; then
    echo "CI=true: every test has to run." >&2
    exit 1
fi
