# shellcheck shell=bash
# What the launchers share: find a Python, make or reuse a virtual environment, install once.
# Sourced, not run. Sets ROOT; `ensure_environment [extra]` sets PYTHON.
#
#   JMREC_PYTHON  an existing interpreter to use as it is; nothing is installed into it
#   JMREC_VENV    where the virtual environment lies (default: .venv in the checkout)

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON=""

say() { printf '%s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Whether an interpreter is Python 3.11 or newer.
is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

python_version() {
  "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "not Python"
}

# Print the first Python on the PATH that is new enough.
find_python() {
  local name
  for name in python3 python3.12 python3.11 python3.13 python3.14 python; do
    if command -v "$name" >/dev/null 2>&1 && is_new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
  fail "jmrec needs Python 3.11 or newer and none is on the PATH" \
    "(python3 is $(python_version python3)); install one, or name one: JMREC_PYTHON=/path/to/python."
}

# Print what setup.cfg, the only list of it, requires of an interpreter, one a line and without
# markers: the lines of an extra, or of the base. A bare interpreter has nothing that reads markers,
# so only one kind of them is allowed.
requirements() {
  "$1" - "$ROOT/setup.cfg" "${2:-}" <<'PY'
import configparser, re, sys

config = configparser.ConfigParser()
config.read(sys.argv[1])
extra = sys.argv[2]
lines = config["options.extras_require"][extra] if extra else config["options"]["install_requires"]
for line in lines.strip().splitlines():
    found = re.fullmatch(r'([^;]+)(?:; python_version (<|>=) "3\.(\d+)")?', line)
    if not found:
        sys.exit(f"error: launch/common.sh cannot read the marker of {line!r} in setup.cfg")
    if not found[2] or (sys.version_info.minor < int(found[3])) == (found[2] == "<"):
        print(found[1])
PY
}

# Print the required packages that an interpreter lacks, those of an extra too.
missing_packages() {
  local lines more=""
  lines="$(requirements "$1")"
  [ -z "${2:-}" ] || more="$(requirements "$1" "$2")"
  "$1" - "$lines" "$more" <<'PY'
import importlib.metadata, re, sys

missing = []
for name in re.findall(r"^[\w.-]+", "\n".join(sys.argv[1:]), re.M):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing.append(name)
print(" ".join(missing))
PY
}

# A hash of all that decides what is installed.
environment_hash() {
  "$1" - "$ROOT" "${2:-}" <<'PY'
import hashlib, pathlib, sys

digest = hashlib.sha256(repr((sys.version, sys.prefix, sys.argv[2])).encode())
for name in ("setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
    digest.update((pathlib.Path(sys.argv[1]) / name).read_bytes())
print(digest.hexdigest())
PY
}

# Install the checkout, by uv where it can be had (seconds), else by pip (a minute or two).
install() {
  local venv="$1" target="$ROOT" uv=""
  [ -z "${2:-}" ] || target="${ROOT}[$2]"
  if [ -x "$venv/bin/uv" ]; then
    uv="$venv/bin/uv"
  elif command -v uv >/dev/null 2>&1; then
    uv="$(command -v uv)"
  elif "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 \
    -c "$ROOT/constraints.txt" uv >/dev/null 2>&1; then
    uv="$venv/bin/uv"
  fi
  if [ -n "$uv" ]; then
    say "installing jmrec${2:+ with the extra \"$2\"} by uv ..."
    if "$uv" pip install --quiet --python "$venv/bin/python" \
      -c "$ROOT/constraints.txt" -e "$target"; then
      return
    fi
    say "uv did not manage; trying pip."
  fi
  say "installing jmrec${2:+ with the extra \"$2\"} by pip, which takes a minute or two ..."
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c "$ROOT/constraints.txt" -e "$target" ||
    fail "the packages of constraints.txt could not be installed into $venv (see above);" \
      "mend the connection to your package index and run this again."
}

# Set PYTHON to an interpreter that can run jmrec; "$1" is an extra of setup.cfg, or nothing.
ensure_environment() {
  local extra="${1:-}" missing
  # From the folder above the checkout, Python would take the checkout itself for the package.
  export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
  if [ -n "${JMREC_PYTHON:-}" ]; then
    PYTHON="$(command -v "$JMREC_PYTHON" || true)"
    [ -n "$PYTHON" ] || fail "JMREC_PYTHON=$JMREC_PYTHON is not there; name an existing Python."
    is_new_enough "$PYTHON" ||
      fail "JMREC_PYTHON=$JMREC_PYTHON is $(python_version "$PYTHON"); jmrec needs Python 3.11 or newer."
    case "$PYTHON" in /*) ;; *) PYTHON="$PWD/$PYTHON" ;; esac
    missing="$(missing_packages "$PYTHON" "$extra")"
    [ -z "$missing" ] ||
      fail "JMREC_PYTHON=$JMREC_PYTHON lacks: $missing; install these there," \
        "or leave JMREC_PYTHON away and a virtual environment is made."
    say "using $PYTHON (Python $(python_version "$PYTHON")); nothing is installed into it"
    return
  fi

  local venv="${JMREC_VENV:-$ROOT/.venv}" base hash
  case "$venv" in /*) ;; *) venv="$PWD/$venv" ;; esac
  if [ ! -e "$venv/bin/python" ]; then
    base="$(find_python)"
    say "making a virtual environment in $venv with Python $(python_version "$base")"
    "$base" -m venv "$venv" ||
      fail "$base cannot make a virtual environment; install its venv module" \
        "(Debian and Ubuntu: the package python3-venv), remove $venv and run this again."
  fi
  PYTHON="$venv/bin/python"
  is_new_enough "$PYTHON" ||
    fail "$venv holds $(python_version "$PYTHON"), jmrec needs Python 3.11 or newer;" \
      "remove $venv and run this again."

  hash="$(environment_hash "$PYTHON" "$extra")"
  if [ "$(cat "$venv/jmrec-installed-${extra:-base}" 2>/dev/null)" = "$hash" ]; then
    say "reusing $venv (Python $(python_version "$PYTHON"))"
    return
  fi
  install "$venv" "$extra"
  # An extra comes on top of the base, so the base is installed too.
  environment_hash "$PYTHON" "" >"$venv/jmrec-installed-base"
  printf '%s\n' "$hash" >"$venv/jmrec-installed-${extra:-base}"
  say "the command is $venv/bin/jmrec; \". $venv/bin/activate\" puts it on the PATH of your shell"
}

# After ensure_environment: install the lines of the extra "$1" by pip, as the machine's own
# settings of pip say where from. Torch's right build for a machine is found so, and not by uv.
ensure_by_pip() {
  local extra="$1" lines=() line missing stamp hash
  if [ -n "${JMREC_PYTHON:-}" ]; then
    missing="$(missing_packages "$PYTHON" "$extra")"
    [ -z "$missing" ] ||
      fail "JMREC_PYTHON=$JMREC_PYTHON lacks: $missing; install these there," \
        "or leave JMREC_PYTHON away and a virtual environment is made."
    return
  fi
  stamp="$(dirname "$(dirname "$PYTHON")")/jmrec-installed-$extra"
  hash="$(environment_hash "$PYTHON" "$extra")"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ]; then return; fi
  line="$(requirements "$PYTHON" "$extra")"
  if [ -z "$line" ]; then return; fi # nothing of it is for this Python
  while IFS= read -r line; do lines+=("$line"); done <<<"$line"
  say "installing the extra \"$extra\" by pip: ${lines[*]} ..."
  "$PYTHON" -m pip install --quiet --disable-pip-version-check \
    -c "$ROOT/constraints.txt" "${lines[@]}" ||
    fail "${lines[*]} could not be installed into $(dirname "$(dirname "$PYTHON")") (see above);" \
      "mend the connection to your package index and run this again."
  printf '%s\n' "$hash" >"$stamp"
}

# Run a command, and again while it ends with 75 ("start me again"); `again TIMES COMMAND ...`.
# Whoever traps a signal sets `stopped` to say that it is enough.
again() {
  local times="$1" code
  shift
  while true; do
    code=0
    "$@" || code=$?
    if [ "$code" -ne 75 ] || [ "$times" -le 0 ] || [ -n "${stopped:-}" ]; then return "$code"; fi
    times=$((times - 1))
    say "it ended with 75; started again"
  done
}
