#!/usr/bin/env bash
# keysync as a plain container, anywhere: bash docker-run.sh sync
#
# The arguments go to keysync (default: run). It signs in as an app registration: AZURE_TENANT_ID, AZURE_CLIENT_ID and
# AZURE_CLIENT_SECRET come from the environment, and no value is on a command line.
#
#   IMAGE    the image (keysync:0.1.0)
#   CONFIG   the configuration, with `credential: {type: environment}` (keysync.yaml)
#   DOCKER   the program (docker); podman has the same options
set -euo pipefail

: "${AZURE_TENANT_ID:?}" "${AZURE_CLIENT_ID:?}" "${AZURE_CLIENT_SECRET:?}"
# Docker would mount a missing file as an empty folder.
CONFIG="$(realpath -e -- "${CONFIG:-keysync.yaml}")"

options=(
    --rm
    --user 65532:65532 --read-only --cap-drop=ALL --security-opt no-new-privileges
    --memory 256m --pids-limit 64
    --env AZURE_TENANT_ID --env AZURE_CLIENT_ID --env AZURE_CLIENT_SECRET
    --volume "$CONFIG:/etc/keysync/keysync.yaml:ro"
)
exec "${DOCKER:-docker}" run "${options[@]}" "${IMAGE:-keysync:0.1.0}" "${@:-run}"
