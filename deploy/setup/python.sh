# Sourced by the other scripts: find_python prints an interpreter of 3.11 or newer that can make environments.

find_python() {
    local candidates=(python3 python3.11 python3.12 python3.13 python3.14) candidate
    if [[ -n "${PYTHON:-}" ]]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        # Run it: a name on the path may be a launcher without an interpreter behind it, and Debian packs ensurepip apart.
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    {
        echo "No usable Python: 3.11 or newer is needed, with the venv module. Tried: ${candidates[*]}"
        for candidate in "${candidates[@]}"; do
            if command -v "$candidate" >/dev/null 2>&1; then
                echo "  $candidate: $("$candidate" --version 2>&1 | head -n 1)"
            fi
        done
        echo "On Debian and Ubuntu: apt-get install python3 python3-venv. Another interpreter: make PYTHON=/path/to/python3.12 ..."
    } >&2
    return 1
}
