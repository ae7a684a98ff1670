#!/bin/bash
# Sets up .venv from requirements/main.txt (to run) or requirements/dev.txt (to test), and the checkout itself in editable form.
# Usage: environment.sh main|dev
set -euo pipefail

kind=${1:?usage: environment.sh main|dev}
cd "$(dirname "$0")/../.."
. deploy/setup/python.sh

is_usable() {
    .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if ! is_usable; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

echo "Installing requirements/$kind.txt into .venv"
pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)
"${pip[@]}" install --quiet --progress-bar off --require-hashes -r "requirements/$kind.txt"
"${pip[@]}" install --quiet --progress-bar off --no-deps --no-build-isolation -e .

# What tests need includes what the daemon needs, in the same versions.
touch .venv/main.stamp
if [[ "$kind" == dev ]]; then
    touch .venv/dev.stamp
fi
