# What every job does. `submit` puts these variables and the profile's own job.sh above it, and hands the whole to the
# scheduler, which runs it in the working directory:
#   record            where this submission's notes go, without their endings
#   command           the script with Snakemake's command
#   profile           the folder of the profile
#   walltime, margin  seconds until the job is killed, and how long before that it has to have saved
#   scratch           folder to make on the node's own disk, or nothing
#   before            ids of the submissions before this one, which the scheduler says are over
#   fence             seconds after which to look, again and again, whether another job has taken this one's place
#   logs              the folder of its log
#   saves             yes, if it saves its progress when it is warned
# The profile's job.sh says: job (its id), queue, slots and host, and `run`, which runs a script as the job's command.

start=$(date +%s)
begun='' watch=''
job_folder=$PWD
note() { # whole or not at all, for it is read from another machine
    printf '%s\n' "$2" > "$job_folder/$record.$1.part" && mv "$job_folder/$record.$1.part" "$job_folder/$record.$1"
}
replaced() { # by a later submission, or started again elsewhere: a node that was given up may live on with all its processes
    local file now
    for file in "$job_folder/${record%/*}"/[0-9]*.json; do
        file=${file##*/}
        if [ "${file%.json}" -gt "${record##*/}" ] 2> /dev/null; then return 0; fi
    done
    now=$(cat "$job_folder/$record.start" 2> /dev/null)
    [ -n "$now" ] && [ "$now" != "$me" ]
}
finish() {
    code=$?
    [ -z "$watch" ] || kill "$watch"
    ! replaced || exit "$code"
    # Snakemake ends with 0 when it did nothing because its input did not show on this node.
    if [ "$code" = 0 ] && grep -q '^Missing files after' "$logs/$job.log"; then code=75; fi
    [ -n "$begun" ] || code=75 # whatever bash took for the code of a prologue that ends the shell
    [ -z "$scratch" ] || rm -rf -- "$scratch"
    note exit "$job $code"
}
trap finish EXIT

me="{\"id\": \"$job\", \"time\": $start, \"host\": \"$host\", \"queue\": \"$queue\", \"slots\": $slots, \"process\": $$}"
rm -f "$record.exit" # of this job before it was started again
note start "$me"
if replaced; then exit 75; fi
(
    trap 'kill "$pause"; exit' TERM
    while sleep "$fence" & pause=$! && wait "$pause"; do
        if replaced; then
            echo "another job has taken the place of job $job, which ends"
            kill -KILL 0
        fi
    done
) &
watch=$!
export JOB_BEFORE=$before
export JOB_DEADLINE=$((start + walltime - margin))
if [ -n "$scratch" ]; then
    mkdir -p -- "$scratch" || exit 75
    export TMPDIR=$scratch
fi
# Snakemake itself needs one thread; it gives its jobs theirs. Left alone, the libraries would map memory for each core of the node.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 MALLOC_ARENA_MAX=2
source "$profile/prologue.sh" || exit 75
begun=yes
run "$job_folder/$command"
