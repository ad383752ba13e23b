#!/usr/bin/env bash
# A real Grid Engine on one machine, for the tests in tests/cluster. See --help.
source "$(dirname "$(readlink -f "$0")")/../cells.sh"

usage() {
    cat <<TEXT
A real Grid Engine cell on this one machine, shaped like UCL CS's cluster, for the tests in tests/cluster.

usage, as root on Debian 12 (no systemd is needed):

  cell.sh install        install Grid Engine and sudo; nothing is downloaded where they are there
  cell.sh start          start the cell, or give a running one the settings below; ends when both queues answer
  cell.sh stop           stop both daemons
  cell.sh status         show the queues and every job

and, for tests of what a cluster does on a bad day:

  cell.sh stop-master    no qsub, qstat or qdel gets an answer; running jobs go on
  cell.sh start-master
  cell.sh kill-execd     kill -9 of the host's daemon; running jobs go on, but nobody reports them
  cell.sh start-execd
  cell.sh reschedule JOB start a running job again, as an administrator can

Grid Engine refuses jobs of root: submit them as the user $user, whom \`start\` creates and whom sudo
lets run \`sudo $cell COMMAND\` for every command from \`stop\` on. No environment
variable is needed. For example:

  runuser -l $user -c 'echo sleep 10 | qsub -l tmem=1G,h_rt=0:10:0'

The cell has cpu.q ($cpu_slots slots) and gpu.q ($gpu_slots slots; no real GPU), the parallel environments smp and gpu,
$tmem of tmem (whatever the machine has; each slot of a job takes what the job asks for) and $tscratch of tscratch.
A job that asks for no tmem or no h_rt is refused. gpu.q takes only jobs with -l gpu=true.
TEXT
}

cpu_slots=24
gpu_slots=4
tmem=64G # most test jobs sleep, so more is promised than there is
tscratch=100G

export SGE_ROOT=/var/lib/gridengine SGE_CELL=default
cell_of_daemons=(SGE_ROOT="$SGE_ROOT" SGE_CELL="$SGE_CELL")
export SGE_SINGLE_LINE=1 # no broken lines in what qconf prints, as it is edited and given back
common=$SGE_ROOT/$SGE_CELL/common
spool=/var/spool/gridengine

as_admin() { runuser -u sgeadmin -- "$@"; }

# The id of a daemon's process; fails where it does not run. A dead one that nobody buried does not count, nor does the
# copy of itself with which a daemon starts a job.
master_id() { pgrep --oldest --exact --runstates D,R,S sge_qmaster; }
execd_id() { pgrep --oldest --exact --runstates D,R,S sge_execd; }
gone() { ! "$@" >/dev/null; }

master_answers() { timeout 5 qconf -sh >/dev/null 2>&1; }
# qstat's last column holds a queue's state: empty where all is well, au where its host was not heard of.
queues_answer() {
    [[ $(timeout 5 qstat -f 2>/dev/null | awk '/^(cpu|gpu)\.q@/ && NF == 5' | wc -l) == 2 ]]
}

install_grid_engine() {
    local answers="gridengine-common shared/gridengine"
    printf '%s\n' "${answers}config boolean true" "${answers}cell string $SGE_CELL" "${answers}master string $host" |
        debconf-set-selections
    # msmtp-mta: the smallest mail server, or a large one comes along; netbase: which ports Grid Engine has
    install_packages gridengine-master gridengine-exec gridengine-client netbase msmtp-mta
}

start_master() {
    local end=$((SECONDS + 60))
    # One that is on its way out runs for a while without answering: so it is looked at anew each time.
    until master_answers; do
        ((SECONDS < end)) || die "the master does not answer; see $spool/qmaster/messages"
        master_id >/dev/null || daemon "${cell_of_daemons[@]}" /usr/sbin/sge_qmaster || true
        sleep 0.3
    done
}

stop_master() {
    local id
    id=$(master_id) || return 0
    kill "$id"
    until_true 60 gone master_id || die "the master (process $id) does not stop"
}

start_execd() {
    execd_id >/dev/null || daemon "${cell_of_daemons[@]}" /usr/sbin/sge_execd || die "the host's daemon does not start; see $spool/execd/*/messages"
    if master_answers; then
        until_true 60 queues_answer || die "the queues do not answer:"$'\n'"$(qstat -f 2>&1)"
    fi
}

stop_execd() { # stop_execd [SIGNAL]
    local id
    id=$(execd_id) || return 0
    kill "-${1:-TERM}" "$id"
    until_true 30 gone execd_id || die "the host's daemon (process $id) does not stop"
}

# set_values NAME VALUE...: reads `name value` lines and gives them back with these values.
set_values() {
    awk 'BEGIN { for (i = 1; i < ARGC; i += 2) { value[ARGV[i]] = ARGV[i + 1]; ARGV[i] = ARGV[i + 1] = "" } }
        $1 in value { $0 = $1 " " value[$1]; delete value[substr($0, 1, index($0, " ") - 1)] }
        { print }
        END { for (name in value) print name, value[name] }' "$@"
}

# put KIND LETTER NAME FILE: adds what is new, modifies what is there (qconf -sql lists queues, -Aq adds, -Mq modifies one).
put() {
    local verb=A
    if qconf "-s$1" 2>/dev/null | grep -qx "$3"; then verb=M; fi
    quietly qconf "-$verb$2" "$4"
}

configure() {
    local work
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    chmod 755 "$work"

    quietly qconf -ah "$host"
    quietly qconf -as "$host"

    # bash, as the library that comes with Grid Engine fails under dash
    cat >"$common/asks.jsv" <<'JSV'
#!/bin/bash
# Refuses a job that does not say how much memory and time it needs, as UCL CS does.
source "$SGE_ROOT/util/resources/jsv/jsv_include.sh"
jsv_on_start() { :; }
jsv_on_verify() {
    local name
    for name in tmem h_rt; do
        if [[ $(jsv_sub_is_param l_hard $name) != true ]]; then
            jsv_reject "This job asks for no $name. Both tmem and h_rt are needed, for example -l tmem=4G,h_rt=1:0:0"
            return
        fi
    done
    jsv_accept
}
jsv_main
JSV
    chmod 755 "$common/asks.jsv"

    qconf -sconf global | grep -v '^#' | set_values \
        load_report_time 00:00:05 max_unheard 00:01:00 mailer /bin/true shell_start_mode unix_behavior \
        execd_params ENABLE_ADDGRP_KILL=true jsv_url "script:$common/asks.jsv" \
        reporting_params 'accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00' >"$work/global"
    quietly qconf -Mconf "$work/global"

    # what makes jobs start within a second
    qconf -ssconf | set_values schedule_interval 0:0:1 flush_submit_sec 1 flush_finish_sec 1 schedd_job_info true \
        max_reservation 32 >"$work/scheduler"
    quietly qconf -Msconf "$work/scheduler"

    # name, short name, type, relation, requestable, consumable, default, urgency
    {
        qconf -sc | grep -vE '^(#|tmem|h_vmem|tscratch|gpu|gpu_type) *'
        cat <<COMPLEXES
tmem      tmem      MEMORY    <=  FORCED  YES  0      0
h_vmem    h_vmem    MEMORY    <=  YES     NO   0      0
tscratch  tscr      MEMORY    <=  YES     YES  0      0
gpu       gpu       BOOL      ==  FORCED  NO   FALSE  0
gpu_type  gpu_type  RESTRING  ==  YES     NO   NONE   0
COMPLEXES
    } >"$work/complexes"
    quietly qconf -Mc "$work/complexes"

    {
        echo "hostname $host"
        echo "complex_values tmem=$tmem,tscratch=$tscratch"
        printf '%s NONE\n' load_scaling user_lists xuser_lists projects xprojects usage_scaling report_variables
    } >"$work/host"
    put el e "$host" "$work/host"

    local pe
    for pe in "smp $((cpu_slots + gpu_slots))" "gpu $gpu_slots"; do
        # shellcheck disable=SC2016 # $pe_slots is Grid Engine's own: all slots on one host
        printf '%s\n' "pe_name ${pe% *}" "slots ${pe#* }" 'allocation_rule $pe_slots' 'user_lists NONE' 'xuser_lists NONE' \
            'start_proc_args NONE' 'stop_proc_args NONE' 'control_slaves FALSE' 'job_is_first_task TRUE' \
            'urgency_slots min' 'accounting_summary FALSE' 'qsort_args NONE' >"$work/pe"
        put pl p "${pe% *}" "$work/pe"
    done

    # the defaults' load_thresholds would close the queues of a machine as small as this one
    qconf -sq | set_values hostlist "$host" shell /bin/bash shell_start_mode unix_behavior rerun FALSE \
        notify 00:00:10 load_thresholds NONE min_cpu_interval 00:00:10 >"$work/queue"
    set_values qname cpu.q slots "$cpu_slots" pe_list smp <"$work/queue" >"$work/cpu.q"
    set_values qname gpu.q slots "$gpu_slots" pe_list 'smp gpu' complex_values gpu=TRUE,gpu_type=rtx4090 \
        <"$work/queue" >"$work/gpu.q"
    put ql q cpu.q "$work/cpu.q"
    put ql q gpu.q "$work/gpu.q"
}

start() {
    [[ -x /usr/sbin/sge_qmaster ]] || die "Grid Engine is not installed: cell.sh install"
    # The names of one machine are many; Grid Engine has to take them for one.
    local file
    for file in "act_qmaster $host" "host_aliases $host localhost"; do
        [[ $(cat "$common/${file%% *}" 2>/dev/null) == "${file#* }" ]] || echo "${file#* }" >"$common/${file%% *}"
        chown sgeadmin:sgeadmin "$common/${file%% *}"
    done
    install -d -o sgeadmin -g sgeadmin $spool/{execd,qmaster,spooldb} /run/gridengine
    [[ -e $spool/spooldb/sge ]] ||
        quietly as_admin /usr/share/gridengine/scripts/init_cluster "$SGE_ROOT" "$SGE_CELL" $spool/spooldb sgeadmin
    # world readable: qacct runs as whoever asks
    [[ -e $common/accounting ]] || install -o sgeadmin -g sgeadmin -m 644 /dev/null "$common/accounting"
    chmod 644 "$common/accounting"

    start_master
    as_admin qconf -am root >/dev/null 2>&1 || true # fails where root is one
    configure
    make_user stop stop-master start-master kill-execd start-execd 'reschedule [0-9]*' status
    start_execd
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
    install | start | stop | stop-master | start-master | kill-execd | start-execd | reschedule | status) ;;
    *)
        usage >&2
        exit 2
        ;;
esac
[[ $(id -u) == 0 ]] || die "$1 needs root"
case $1 in
    install) install_grid_engine ;;
    start) start ;;
    stop) stop_execd && stop_master ;;
    stop-master) stop_master ;;
    start-master) start_master ;;
    kill-execd) stop_execd KILL ;;
    start-execd) start_execd ;;
    reschedule)
        [[ ${2:-} =~ ^[0-9]+$ ]] || die "reschedule needs the number of a job"
        # Held until its first run has been ended: there is only this host, which does nothing with a job that it has already.
        quietly qhold -h s "$2"
        quietly qmod -f -rj "$2"
        until_true 60 gone test -e $spool/execd/*/active_jobs/"$2".1 || die "the first run of job $2 does not end"
        quietly qrls -h s "$2"
        ;;
    status) qstat -f -u '*' ;;
esac
