#!/bin/sh
# Makes .venv and installs ifgo (editable) into it with the named extras; does nothing where that
# is already so. What is missing on this machine is named, with the package that brings it.
#
#   tools/bootstrap.sh [-c CONSTRAINTS] EXTRA...
#
# PYTHON  the interpreter to use; otherwise the newest suitable one on PATH
# CC      the C compiler to use; otherwise cc, gcc or clang
# -c      install in any case, in the versions that the file CONSTRAINTS pins
#
# It runs before anything is installed: POSIX sh only. In .venv, ifgo-python holds the interpreter
# and the folder that .venv belongs to, ifgo-extra-NAME the pyproject.toml it was installed from.
set -eu
cd "${0%/*}/.."

venv=.venv
here=$(pwd -P)
constraints=''
if [ "${1:-}" = -c ] && [ $# -gt 2 ]; then
    constraints=$2
    shift 2
fi
case "${1:--}" in
    -*) echo "usage: tools/bootstrap.sh [-c CONSTRAINTS] EXTRA..." >&2; exit 2 ;;
esac

say() { printf '%s\n' "$@" >&2; }

# Version, machine and installation of interpreter $1; fails where it does not run or is too old.
identify() {
    "$1" -c 'import platform, sys
print("%d.%d" % sys.version_info[:2], platform.machine(), sys.base_prefix)
sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Sets $python to the first suitable interpreter; says what to do where there is none.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.14 python3.13 python3.12 python3.11 python3
    fi
    bare='' found=''
    for candidate; do
        # A name on PATH can be the shim of a version manager that fails: only running it tells.
        if identity=$(identify "$candidate"); then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                python=$candidate
                return 0
            fi
            [ -n "$bare" ] || bare="$candidate ${identity%% *}"
        elif [ -n "$identity" ]; then
            found=" ($candidate is ${identity%% *})"
        fi
    done
    if [ -n "$bare" ]; then
        say "${bare% *} (Python ${bare##* }) has no venv and ensurepip modules. Install them:" \
            "  Debian, Ubuntu   sudo apt-get install python${bare##* }-venv" \
            "  Fedora           sudo dnf install python3 python3-pip" \
            "  macOS            brew install python"
    elif [ -n "${PYTHON:-}" ]; then
        say "PYTHON=$PYTHON is no Python 3.11 or newer that runs$found. Unset it or name another."
    else
        say "No Python 3.11 or newer that runs is on PATH$found. Install one:" \
            "  Debian, Ubuntu   sudo apt-get install python3 python3-venv" \
            "  Fedora           sudo dnf install python3 python3-pip" \
            "  macOS            brew install python" \
            "or name one: make PYTHON=/path/to/python3"
    fi
    return 1
}

# Checks that a C compiler runs and finds the C library's headers; says what to do otherwise.
find_compiler() {
    if [ -n "${CC:-}" ]; then
        set -- "$CC"
    else
        set -- cc gcc clang
    fi
    for candidate; do
        # Running it tells a compiler from the placeholder of macOS.
        if echo '#include <stdio.h>' | "$candidate" -fsyntax-only -x c - 2>/dev/null; then
            return 0
        fi
    done
    say "No C compiler that finds <stdio.h> is on PATH${CC:+ (CC=$CC)}. Install one:" \
        "  Debian, Ubuntu   sudo apt-get install gcc libc6-dev" \
        "  Fedora           sudo dnf install gcc" \
        "  macOS            xcode-select --install" \
        "or name one: make CC=/path/to/cc"
    return 1
}

# Whether .venv runs, is new enough, is where it was made, by the interpreter that made it (and,
# where PYTHON names one, by that). An environment made by hand is taken as it is.
venv_is_sound() {
    if ! identity=$(identify $venv/bin/python) || ! $venv/bin/python -c 'import pip' 2>/dev/null; then
        why="it does not run, or is older than Python 3.11"
        return 1
    fi
    recorded=$(cat $venv/ifgo-python 2>/dev/null || echo "$identity $here")
    [ "$recorded" = "$identity $here" ] || {
        why="it was made by another Python or in another folder ($recorded)"
        return 1
    }
    [ -z "${PYTHON:-}" ] || [ "$(identify "$PYTHON")" = "$identity" ] || {
        why="it was not made by PYTHON=$PYTHON"
        return 1
    }
}

sound=yes
find_compiler || sound=no
if [ -e $venv ] && venv_is_sound; then
    python=''
else
    find_python || sound=no
fi
[ $sound = yes ] || exit 1

if [ -n "$python" ]; then
    if [ -e $venv ]; then
        say "Making $venv anew: $why."
    else
        say "Making $venv with $python."
    fi
    "$python" -m venv --clear $venv
    identity=$(identify $venv/bin/python)
fi
echo "$identity $here" >$venv/ifgo-python

source=$(cksum <pyproject.toml)
wanted=''
for extra; do
    [ -z "$constraints" ] && [ "$(cat "$venv/ifgo-extra-$extra" 2>/dev/null)" = "$source" ] ||
        wanted="$wanted${wanted:+,}$extra"
done
[ -n "$wanted" ] || exit 0

say "Installing ifgo[$wanted] into $venv."
$venv/bin/python -m pip install --quiet --disable-pip-version-check \
    ${constraints:+-c "$constraints"} --editable ".[$wanted]" || {
    say "The installation failed: pip's message is above. It needs a package index."
    exit 1
}
for extra; do
    echo "$source" >"$venv/ifgo-extra-$extra"
done
