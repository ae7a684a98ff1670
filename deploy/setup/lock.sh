#!/bin/bash
# Rewrites requirements/main.txt and requirements/dev.txt, with hashes, from the .in files. Pinned versions stay unless an .in file
# forbids them or --upgrade is given. Usage: lock.sh [further arguments for uv pip compile]
set -euo pipefail

cd "$(dirname "$0")/../.."
. deploy/setup/python.sh

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python=$(find_python)
"$python" -m venv "$tools"
"$tools/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --progress-bar off uv

compile() {
    "$tools/bin/uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 "$@"
}

# dev.in includes main.in. Where the tools of dev.in hold a package back, it has to be held back in main.in too: the daemon is tested
# with what it runs with, and a test compares the pins.
for name in main dev; do
    compile "$@" --output-file "requirements/$name.txt" "requirements/$name.in"
done
echo "Rewrote requirements/main.txt and requirements/dev.txt; run make test before committing them."
