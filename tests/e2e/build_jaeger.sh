#!/usr/bin/env bash
# Build the Jaeger server that the e2e tests query, once, and print where it is.
set -euo pipefail

version=v1.76.0
bin="${XDG_CACHE_HOME:-$HOME/.cache}/apmkit/bin"
program="$bin/jaeger"

if [[ -x "$program" ]]; then
  echo "$program"
  exit 0
fi

if ! command -v go >/dev/null; then
  echo "build_jaeger.sh: no 'go' on PATH; Jaeger $version needs Go 1.25.4 or later" >&2
  exit 1
fi

# `go install jaeger@version` refuses a module whose go.mod has a `replace`. Built from its own
# folder Jaeger is the main module: the `replace` counts, and its go.sum verifies each dependency.
source="$(cd / && go mod download -json "github.com/jaegertracing/jaeger@$version" |
  sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')"
if [[ -z "$source" ]]; then
  echo "build_jaeger.sh: could not download Jaeger $version from the Go module proxy" >&2
  exit 1
fi

mkdir -p "$bin"
cd "$source"
# Moved to its final name when whole, so that an interrupted build leaves no broken program.
go build -mod=readonly -trimpath -o "$program.part" ./cmd/jaeger >&2
mv "$program.part" "$program"
echo "$program"
