# What Grid Engine tells a job, and how its command is run. The rest of a job is ../cluster/job.sh.
job=$JOB_ID queue=$QUEUE slots=${NSLOTS:-1} host=$HOSTNAME

# Grid Engine warns all processes of a job at once (USR1 at s_rt, USR2 before the kill of -notify). Who has no handler dies of it,
# bash and Snakemake first and training with them. What is ignored here stays so in all of them; training sets its own handler.
trap '' USR1 USR2

run() { bash "$1"; }
