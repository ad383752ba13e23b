#!/usr/bin/env bash
# A real Slurm on one machine, for the tests in tests/cluster. See --help.
source "$(dirname "$(readlink -f "$0")")/../cells.sh"

usage() {
    cat <<TEXT
A real Slurm on this one machine, for the tests in tests/cluster.

usage, as root on Debian 12 (no systemd is needed):

  cell.sh install        install Slurm and sudo; nothing is downloaded where they are there
  cell.sh start          start it, or give a running one the settings below; ends when all nodes wait for jobs
  cell.sh install --accounting, and start --accounting: with a database, of which sacct answers; until the next plain start
  cell.sh stop           stop all daemons
  cell.sh status         show the nodes and every job

and, for tests of what a cluster does on a bad day:

  cell.sh stop-master    no sbatch, squeue or scancel gets an answer; running jobs go on
  cell.sh start-master
  cell.sh kill-node      kill -9 of the daemon of the node \`spare\`, which is given up after 15 to 31 seconds; its jobs go on
  cell.sh start-node
  cell.sh stop-accounting   sacct gets no answer
  cell.sh start-accounting

Jobs are submitted as the user $user, whom \`start\` creates and whom sudo lets run \`sudo $cell COMMAND\`
for every command from \`stop\` on. For example:

  runuser -l $user -c 'sbatch --time=10 --wrap="sleep 10"'

The partition \`all\` has \`node\` and \`gpu\` (with two GPUs, which are none), \`single\` only \`gpu\`, and \`spare\` a node for itself.
Each node has $cpus cores and $mem MB, whatever the machine has, and $tmpfs of tmpfs. Memory is held by cgroups (v1) where this
machine lets root make them, else by looking every two seconds. Without --accounting, sacct answers that it is disabled.
TEXT
}

nodes=(node gpu spare)
cpus=32
mem=64000 # most test jobs sleep, so more is promised than there is
tmpfs=100G
etc=/etc/slurm
spool=/var/spool/slurm
log=/var/log/slurm
run=/run/slurm
accounting='' # or slurmdbd

# The id of the daemon NAME that wrote FILE; fails where it does not run. A dead one that nobody buried does not count.
alive() { # alive FILE NAME
    local id
    id=$(cat "$1" 2>/dev/null) && [[ -n $id && $(cat "/proc/$id/comm" 2>/dev/null) == "$2"* ]] || return 1
    ! grep -q '^State:.Z' "/proc/$id/status" && echo "$id"
}
dead() { ! alive "$@"; }

end() { # end FILE NAME [SIGNAL]
    local id
    id=$(alive "$1" "$2") || return 0
    kill "-${3:-TERM}" "$id"
    until_true 30 dead "$1" "$2" || die "$2 (process $id) does not stop"
}

configure() {
    local name number=0
    install -d $etc
    install -d -o slurm -g slurm $spool $spool/master $log $run
    for name in 0 1; do # a GPU is a device, whose last digit is its index; these are like /dev/null
        [[ -c $spool/gpu$name ]] || mknod -m 666 "$spool/gpu$name" c 1 3
    done
    local track=linuxproc gather=linux task=none more=JobAcctGatherParams=OverMemoryKill
    if [[ -d /sys/fs/cgroup/memory && -d /sys/fs/cgroup/freezer ]] && mkdir -p /sys/fs/cgroup/memory/slurm 2>/dev/null; then
        track=cgroup gather=cgroup task=cgroup more=''
    fi
    {
        cat <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=$spool/master
SlurmdSpoolDir=$spool/%n
SlurmctldPidFile=$run/master.pid
SlurmdPidFile=/run/slurmd-%n.pid
SlurmctldLogFile=$log/master.log
SlurmdLogFile=$log/%n.log
# what makes jobs start within a second, and a lost node be noticed within half a minute
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=2
SlurmdTimeout=15
KillWait=10
MinJobAge=300
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# several nodes on one machine, larger than it is
SlurmdParameters=config_overrides
ReturnToService=2
UnkillableStepTimeout=300
GresTypes=gpu,tmpfs
DefMemPerCPU=500
ProctrackType=proctrack/$track
TaskPlugin=task/$task
JobAcctGatherType=jobacct_gather/$gather
JobAcctGatherFrequency=2
$more
AccountingStorageType=accounting_storage/${accounting:-none}
${accounting:+AccountingStorageEnforce=limits}
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
CONF
        local gres weight # a job that needs no GPU is kept off the node that has some
        for name in "${nodes[@]}"; do
            gres=tmpfs:$tmpfs weight=1
            [[ $name != gpu ]] || gres=gpu:rtx4090:2,$gres weight=2
            echo "NodeName=$name NodeHostname=$host NodeAddr=127.0.0.1 Port=$((7010 + number++)) CPUs=$cpus RealMemory=$mem" \
                "Gres=$gres Weight=$weight"
        done
        echo "PartitionName=all Nodes=node,gpu Default=YES MaxTime=3-00:00:00 DefaultTime=00:10:00 State=UP"
        echo "PartitionName=single Nodes=gpu MaxTime=3-00:00:00 DefaultTime=00:10:00 State=UP"
        echo "PartitionName=spare Nodes=spare MaxTime=3-00:00:00 DefaultTime=00:10:00 State=UP"
    } >$etc/slurm.conf.new
    {
        echo "NodeName=gpu Name=gpu Type=rtx4090 File=$spool/gpu[0-1]"
        for name in "${nodes[@]}"; do echo "NodeName=$name Name=tmpfs Count=$tmpfs"; done
    } >$etc/gres.conf.new
    printf '%s\n' CgroupPlugin=cgroup/v1 CgroupAutomount=no CgroupMountpoint=/sys/fs/cgroup ConstrainRAMSpace=yes \
        AllowedRAMSpace=100 MinRAMSpace=1 >$etc/cgroup.conf.new
    changed=''
    for name in slurm gres cgroup; do
        cmp -s "$etc/$name.conf.new" "$etc/$name.conf" || changed=yes
        mv "$etc/$name.conf.new" "$etc/$name.conf"
    done
    for name in "${nodes[@]}"; do install -d "$spool/$name"; done
}

start_munge() {
    install -d -o munge -g munge -m 755 /run/munge
    install -d -o munge -g munge -m 700 /var/log/munge /var/lib/munge
    if [[ ! -e /etc/munge/munge.key ]]; then
        (umask 077 && head -c 128 /dev/urandom >/etc/munge/munge.key && chown munge: /etc/munge/munge.key)
    fi
    munge -n >/dev/null 2>&1 || daemon runuser -u munge -- /usr/sbin/munged
    until_true 10 munge -n || die "munged does not answer; see /var/log/munge/munged.log"
}

start_master() {
    alive $run/master.pid slurmctld >/dev/null || daemon runuser -u slurm -- /usr/sbin/slurmctld -i || die "see $log/master.log"
    until_true 60 scontrol ping || die "the controller does not answer; see $log/master.log"
}
stop_master() { end $run/master.pid slurmctld; }

start_accounting() {
    install -d -o mysql -g mysql /run/mysqld
    install -d $spool
    [[ -d $spool/database ]] || quietly mariadb-install-db --no-defaults --user=mysql --datadir=$spool/database --skip-test-db
    mariadb-admin ping >/dev/null 2>&1 || daemon setsid --fork /usr/sbin/mariadbd --no-defaults --user=mysql \
        --datadir=$spool/database --socket=/run/mysqld/mysqld.sock --pid-file=/run/mysqld/mysqld.pid --skip-networking \
        --log-error=$spool/database/error.log --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900
    until_true 60 mariadb-admin ping || die "the database does not answer; see $spool/database/error.log"
    mariadb <<<"create database if not exists slurm; create user if not exists slurm@localhost identified by 'slurm';
        grant all on slurm.* to slurm@localhost"
    install -o slurm -g slurm -m 600 /dev/stdin $etc/slurmdbd.conf <<CONF
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
SlurmUser=slurm
LogFile=$log/accounting.log
PidFile=$run/accounting.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
CommitDelay=0
CONF
    alive $run/accounting.pid slurmdbd >/dev/null || daemon runuser -u slurm -- /usr/sbin/slurmdbd || die "see $log/accounting.log"
    until_true 60 sacctmgr --noheader show cluster || die "the accounting does not answer; see $log/accounting.log"
    local one
    for one in "cluster test" "account test cluster=test" "user $user account=test"; do
        # shellcheck disable=SC2086 # words of their own
        [[ $(sacctmgr --noheader --parsable2 show ${one% *=*}) ]] || quietly sacctmgr --immediate add $one
    done
}
stop_accounting() {
    end $run/accounting.pid slurmdbd
    end /run/mysqld/mysqld.pid mariadbd
}

start_node() { # start_node NAME
    alive "/run/slurmd-$1.pid" slurmd >/dev/null || daemon /usr/sbin/slurmd -N "$1" || die "see $log/$1.log"
}
stop_node() { end "/run/slurmd-$1.pid" slurmd "${2:-TERM}"; } # stop_node NAME [SIGNAL]

# A node that was given up stays so, across restarts too, until someone says otherwise.
nodes_wait() {
    local name state all=0
    while read -r name state; do
        case $state in
            idle | mixed | allocated | completing) ;;
            *)
                all=1
                scontrol update "nodename=$name" state=resume
                ;;
        esac
    done < <(sinfo --noheader --Node --format='%N %T' | sort -u)
    return $all
}

start() {
    [[ -x /usr/sbin/slurmctld ]] || die "Slurm is not installed: cell.sh install"
    local name file
    configure
    start_munge
    if [[ $accounting ]]; then start_accounting; else stop_accounting; fi
    if [[ $changed ]]; then # new settings are read by new daemons
        for file in /run/slurmd-*.pid; do end "$file" slurmd; done
        stop_master
    fi
    make_user stop stop-master start-master kill-node start-node stop-accounting start-accounting status
    start_master
    for name in "${nodes[@]}"; do start_node "$name"; done
    until_true 60 nodes_wait || die "not all nodes are up:"$'\n'"$(sinfo --Node --format='%N %T %E')"
}

case ${1:-} in
    -h | --help)
        usage
        exit
        ;;
    install | start | stop | stop-master | start-master | kill-node | start-node | stop-accounting | start-accounting | status) ;;
    *)
        usage >&2
        exit 2
        ;;
esac
[[ $(id -u) == 0 ]] || die "$1 needs root"
packages=(slurmctld slurmd slurm-client munge)
if [[ ${2:-} == --accounting && $1 == @(install|start) ]]; then
    accounting=slurmdbd packages+=(slurmdbd mariadb-server)
fi
case $1 in
    install) install_packages "${packages[@]}" ;;
    start) start ;;
    stop)
        for name in "${nodes[@]}"; do stop_node "$name"; done
        stop_master
        stop_accounting
        end /run/munge/munged.pid munged
        ;;
    stop-master) stop_master ;;
    start-master) start_master ;;
    stop-accounting) end $run/accounting.pid slurmdbd ;;
    start-accounting) start_accounting ;;
    kill-node) stop_node spare KILL ;;
    start-node)
        start_node spare
        until_true 60 nodes_wait || die "the node does not answer; see $log/spare.log"
        ;;
    status) sinfo --Node --long && squeue --states=all ;;
esac
