#!/bin/sh
# Installs the container engines and tools that the demo and the tests use, where this may be done.
# What is there already is left alone, so a prepared machine needs neither root nor a network.
set -eu

missing=""
need() { # command package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need crun crun
need runc runc
need runsc runsc
need busybox busybox-static
need mkfs.erofs erofs-utils
need setsid util-linux
need strace strace
need jq jq
need go golang-go
# Only the benches compare with these: sh scripts/system-packages.sh rivals
if [ "${1:-}" = rivals ]; then
    need podman podman
    need conmon conmon
    need containerd containerd
fi
# What makes an emulated machine: sh scripts/system-packages.sh machine
if [ "${1:-}" = machine ]; then
    need qemu-system-x86_64 qemu-system-x86
    need mmdebstrap mmdebstrap
fi
# A library has no command to look for.
[ -d /usr/share/gocode/src/gvisor.dev/gvisor ] || missing="$missing golang-gvisor-gvisor-dev"

[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # One at a time: a release without one of them still gets the others.
    for package in $missing; do
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            echo "could not install $package: what needs it is skipped, and says so" >&2
    done
else
    echo "not installed:$missing" >&2
    echo "  run as root: apt-get install -y --no-install-recommends$missing" >&2
    echo "  going on with what is here" >&2
fi
