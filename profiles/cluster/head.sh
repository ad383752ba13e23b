#!/bin/bash
# Run Snakemake itself as a job, for a site where nothing may be left running on the login node.
#
#   profiles/sge/head.sh [SNAKEMAKE ARGUMENTS]     for example --configfile config/experiments/ixi-age.yaml
#
# A workflow-manager node, where one may run Snakemake in tmux, is the better place if your site has one: a job ends with its
# walltime, and not every site lets jobs submit jobs. If it ends early, snakemake --unlock and run this again: what is in the queue
# is taken over. To end it all: delete its job, then profiles/sge/cancel --all.
set -euo pipefail
profile=profiles/$(basename "$(dirname "$0")")
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
HOURS=${HOURS:-72}

case "${1:-}" in -h | --help)
    sed -n "2,/^set/{/^set/d;s/^# \{0,1\}//;s#profiles/sge#$profile#;p}" "$0"
    echo "HOURS (now $HOURS) is how long the job may take: HOURS=200 $profile/head.sh"
    exit
    ;;
esac

# A target must not follow a flag that takes several values.
plan=$(snakemake --profile "$profile" --quiet rules --dry-run --nolock "$@" 2>&1) || {
    echo "$plan" >&2
    exit 1
}
if missing=$(grep -oE '^(download|ukbfetch) ' <<< "$plan" | sort -u); then
    echo "The data are not here yet, and jobs do not download. First, on this node:" >&2
    echo "  snakemake --cores 1 ${*:+${*@Q} }--until" $missing >&2
    exit 1
fi
if compgen -G '.snakemake/locks/*' > /dev/null; then
    echo "A Snakemake runs in this folder, or was killed here. If none runs (see the queue), first: snakemake --unlock" >&2
    exit 1
fi
python3 "$profile/head.py" "$HOURS" "$@"
