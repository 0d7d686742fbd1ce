#!/bin/sh
# Makes the virtual environment with the project and its tools. Usage: scripts/venv.sh DIRECTORY
set -eu
venv=$1
python=${PYTHON:-python3}

command -v "$python" >/dev/null 2>&1 || {
    echo "$python is not here: install Python 3.11 or newer, or say PYTHON=/path/to/python" >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$python is older than 3.11: say PYTHON=/path/to/a/newer/python" >&2
    exit 1
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
    else
        echo "$python has no venv module: run as root: apt-get install -y python3-venv" >&2
        exit 1
    fi
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --editable '.[dev,bwrap,fast]'
