# Sourced by scripts/start and scripts/test: finds a Python, makes .venv, installs the hash-pinned requirements when they
# changed, and keeps every by-product (byte code, caches, temporary files) inside .venv. Sets ROOT and PY.
# Everything is said on stderr. Nothing is installed outside .venv, and no step needs root.

ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
PY=$ROOT/.venv/bin/python
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONSAFEPATH
# Byte code lies inside .venv like everything else; without it every process would compile all of its libraries anew.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in ${UNWIND_PYTHON:-} python3 python python3.13 python3.12 python3.11 /usr/bin/python3; do
        if command -v "$name" >/dev/null && fits "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Debian parts ensurepip from python3; its pip wheel can be unpacked without root.
bootstrap_pip() {
    local work=$ROOT/.venv/pip-bootstrap wheel
    mkdir -p "$work"
    if ! (cd "$work" && apt-get download -q python3-pip-whl && dpkg -x ./*.deb .) >"$work/log" 2>&1; then
        cat "$work/log" >&2
        die "Python has no ensurepip here. Install python3-venv (or uv), or name another Python in UNWIND_PYTHON."
    fi
    wheel=$(ls "$work"/usr/share/python-wheels/pip-*.whl | head -n 1)
    "$PY" "$wheel/pip" install --quiet --no-index "$wheel"
    rm -rf "$work"
}

make_venv() {
    local python
    python=$(find_python) || die "Python 3.11 or newer is needed; name one in UNWIND_PYTHON."
    say "making .venv with $("$python" --version 2>&1) ($python)"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv --clear "$ROOT/.venv"
    elif command -v uv >/dev/null; then
        uv venv --quiet --clear --seed --python "$python" "$ROOT/.venv"
    else
        "$python" -m venv --clear --without-pip "$ROOT/.venv"
        bootstrap_pip
    fi
}

install() {
    local file=$1
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$PY" --require-hashes -r "$file" && return
        say "uv could not install $(basename "$file"); trying pip"
    fi
    "$PY" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r "$file"
}

stamp() { cksum <"$ROOT/requirements/$1.txt" | tr ' ' '-'; }

installed() { [ "$(cat "$ROOT/.venv/installed-$1" 2>/dev/null)" = "$(stamp "$1")" ]; }

# prepare SET: SET is runtime or develop (which holds all of runtime in the same versions).
prepare() {
    local set=$1
    mkdir -p "$ROOT/.venv"
    exec 9<"$ROOT/.venv"
    if command -v flock >/dev/null; then flock 9; fi
    if ! { [ -x "$PY" ] && fits "$PY"; }; then make_venv; fi
    if ! installed "$set" && ! installed develop; then
        say "installing requirements/$set.txt"
        rm -f "$ROOT"/.venv/installed-*
        install "$ROOT/requirements/$set.txt" || die "The requirements could not be installed; see above."
        stamp "$set" >"$ROOT/.venv/installed-$set"
    fi
    printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" -P -m unwind_saga "$@"\n' "$ROOT/scripts/wheel" "$PY" \
        >"$ROOT/.venv/bin/unwind.new"
    chmod +x "$ROOT/.venv/bin/unwind.new"
    mv "$ROOT/.venv/bin/unwind.new" "$ROOT/.venv/bin/unwind"
    exec 9<&-
    export PYTHONPYCACHEPREFIX=$ROOT/.venv/cache/bytecode
    export RUFF_CACHE_DIR=$ROOT/.venv/cache/ruff MYPY_CACHE_DIR=$ROOT/.venv/cache/mypy
    export HYPOTHESIS_STORAGE_DIRECTORY=$ROOT/.venv/cache/hypothesis
    mkdir -p "$ROOT/.venv/cache"
}
