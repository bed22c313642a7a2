#!/bin/sh
# Writes the pinned files: names, versions and hashes for every supported Python and platform, no addresses.
# Needs `uv` (pip install uv); run it from the repository's root after changing the dependencies in pyproject.toml.
set -eu
lock="uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet"
$lock pyproject.toml requirements/build.in --extra demo --extra gcp --extra test --extra lint -o requirements/test.txt "$@"
$lock pyproject.toml requirements/build.in --extra demo -c requirements/test.txt -o requirements/demo.txt "$@"
$lock pyproject.toml requirements/build.in --extra demo --extra ingest -c requirements/test.txt -o requirements/image.txt "$@"
$lock requirements/validators.in -o requirements/validators.txt "$@"
$lock requirements/uv.in -c requirements/validators.txt -o requirements/uv.txt "$@"
$lock requirements/docs.in -c requirements/test.txt -o requirements/docs.txt "$@"
