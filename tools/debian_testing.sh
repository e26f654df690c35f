#!/usr/bin/env bash
# Fetch newer programs beside Debian stable's own, out of Debian testing, and print the folder that
# holds them: tools/debian_testing.sh FOLDER NAME VERSION PACKAGE:PROGRAM…
#   NAME     what they are, for messages
#   VERSION  a pattern of what `PROGRAM --version` must say; .* is any
#
# Nothing is installed: apt gets a source list and a lists folder of its own. The mirror is the one
# that this machine is configured for.
set -euo pipefail
folder=$1 name=$2 version=$3
shift 3
packages=() programs=()
for pair in "$@"; do
  packages+=("${pair%%:*}")
  programs+=("${pair##*:}")
done
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

fail() {
  echo "$name cannot be fetched: $*" >&2
  echo "The rules are tested with it. Put its programs of a version like \"$version\" into" >&2
  echo "$folder/bin by hand: ${programs[*]}" >&2
  exit 1
}

have() {
  local program said
  for program in "${programs[@]}"; do
    said=$("$folder/bin/$program" --version 2>&1) || return 1
    [[ $said =~ $version ]] || return 1
  done
}

echo "*" > "$folder/.gitignore"

# Two tests at once download once.
exec 9> "$folder/lock"
flock 9
if have; then
  echo "$folder/bin"
  exit 0
fi
for needed in apt-get dpkg dpkg-deb; do
  command -v "$needed" > /dev/null || fail "$needed is missing; this is no Debian"
done

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
  grep -m 1 -E '/debian/?$') || fail "apt knows no Debian mirror on this machine"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "$keyring is missing (package debian-archive-keyring)"

work=$(mktemp -d "$folder/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/deb"
echo "deb [signed-by=$keyring] $mirror testing main" > "$work/sources.list"
apt=(
  apt-get -qq
  -o "Dir::Etc::sourcelist=$work/sources.list"
  -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::Lists=$work/lists"
  -o "Dir::Cache=$work/cache"
  -o Acquire::Languages=none
  -o Acquire::Retries=3
  -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
  -o APT::Sandbox::User=root # its own user cannot write here
)
{
  "${apt[@]}" update && cd "$work/deb" && "${apt[@]}" download "${packages[@]}"
} >&2 || fail "$mirror does not answer, or has no packages ${packages[*]} in testing"
for package in "$work"/deb/*.deb; do
  dpkg-deb --extract "$package" "$work/tree"
done
mkdir -p "$folder/bin"
for program in "${programs[@]}"; do
  mv -f "$work/tree/usr/bin/$program" "$folder/bin/$program"
done
have || fail "$mirror testing has another version, or its programs do not run here"
echo "$folder/bin"
