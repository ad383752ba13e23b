# What Slurm tells a job, and how its command is run. The rest of a job is ../cluster/job.sh.
cd "$SLURM_SUBMIT_DIR" || exit 75 # where its folder is not to be seen, Slurm runs a job in a temporary one
job=$SLURM_JOB_ID queue=$SLURM_JOB_PARTITION slots=${SLURM_CPUS_PER_TASK:-1} host=$SLURMD_NODENAME

# What is ignored here stays so in all processes of the job; training sets its own handler.
trap '' USR1 USR2

# Slurm signals the job's own shell and, at most sites, nobody else: USR1 as --signal asks, TERM before it kills, at the end of the
# walltime or when the job is deleted. A shell hears of it only if it does not wait for a command in the foreground.
run() {
    (trap '' TERM && exec bash "$1") &
    local child=$! code late
    trap 'pass USR1' USR1
    trap 'pass USR2' TERM
    while :; do
        signalled=''
        wait "$child"
        code=$?
        [ -n "$signalled" ] && kill -0 "$child" 2> /dev/null || break
    done
    if [ -n "$signalled" ]; then # it ended just then, and `wait` told of the signal
        wait "$child"
        late=$?
        [ "$late" = 127 ] || code=$late
    fi
    return "$code"
}
pass() { # pass SIGNAL: to all processes of the job; to one that saves nothing, its end
    signalled=yes
    if [ -z "$saves" ]; then
        [ -z "$scratch" ] || rm -rf -- "$scratch"
        kill -KILL 0
    fi
    trap '' "$1"
    kill "-$1" 0
    trap 'pass USR1' USR1
    trap 'pass USR2' TERM
}
