#!/bin/sh
# In place of an on-work script that calls `docker run`: ant beta:worker poll --on-work ./spawn.sh
#
#   docker run --rm                     pinfold on-work: a sandbox, ended with the work item
#   -v /host/outputs/$ID:/workspace     nothing: all files of the session come back, not /workspace alone
#   --memory, --cpus, --network         the sandbox file
#   -e ANTHROPIC_…_KEY                  nothing: the key stays here, on the host
#   the image's worker process          the runner on the host; or `-- COMMAND…` for a worker inside (docs/worker.md)
#
# An environment may have a sandbox file of its own, called after its id; else /etc/pinfold/sandbox.json holds for it.
set -eu
etc=${PINFOLD_ETC:-/etc/pinfold}
config="$etc/environments/${ANTHROPIC_ENVIRONMENT_ID:?the poller sets it}.json"
[ -r "$config" ] || config="$etc/sandbox.json"
# The item is on standard input; signals and the exit code are pinfold's from here on.
exec pinfold ${PINFOLD_OPTIONS:-} on-work --config "$config" --max-idle "${MAX_IDLE:-60s}"
