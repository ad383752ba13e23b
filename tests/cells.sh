# What tests/sge/cell.sh and tests/slurm/cell.sh have in common. Each sources it, and so does root's copy of each.
set -euo pipefail
umask 022
this_file=$(readlink -f "$0")
this_folder=${this_file%/*}
cd / # daemons stay in the folder they were started from

user=mriflow
trusted=/usr/local/lib/mriflow-tests # root's copies of these files: sudo must not run one that others can write
cell=$trusted/${this_folder##*/}/cell.sh
host=$(hostname)

die() {
    echo "cell.sh: $*" >&2
    exit 1
}

# Runs a command; what it prints is shown only where it fails.
quietly() {
    local message
    message=$("$@" 2>&1 </dev/null) || die "failed: $*"$'\n'"$message"
}

# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

# daemon [NAME=VALUE...] COMMAND...: it must not hold the pipe of whoever waits for this script's output, and hands its
# environment on to every job.
daemon() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null >/dev/null 2>&1
}

# install_packages NAME...: nothing is downloaded where they are there.
install_packages() {
    local wanted=("$@" sudo procps) state
    command -v apt-get >/dev/null || die "this machine has no apt-get; Debian 12 is needed"
    export DEBIAN_FRONTEND=noninteractive
    [[ -n $(apt-cache show "$1" 2>/dev/null) ]] || quietly apt-get update
    # What the workflow needs of Debian's own Python, which every user can read.
    if apt-cache show python3.11-venv >/dev/null 2>&1; then wanted+=(python3.11-venv); fi
    if ! state=$(dpkg-query -W -f '${db:Status-Status}\n' "${wanted[@]}" 2>&1) || grep -qvx installed <<<"$state"; then
        # The packages would start the daemons, unconfigured; this file's 101 forbids it.
        local policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >$policy
            chmod +x $policy
        fi
        local get=(apt-get install -y --no-install-recommends "${wanted[@]}")
        # Lists of packages grow stale: then once more with new ones.
        "${get[@]}" >/dev/null 2>&1 </dev/null || { quietly apt-get update && quietly "${get[@]}"; }
    fi
}

# make_user COMMAND...: the one who submits, and the commands of cell.sh that sudo lets that user run.
make_user() {
    id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    if [[ $this_file != "$cell" ]]; then
        install -d "${cell%/*}"
        install -m 755 "$this_file" "$cell"
        install -m 644 "$this_folder/../cells.sh" "$trusted/cells.sh"
    fi
    local rule new command
    rule=/etc/sudoers.d/mriflow-test-$(basename "${cell%/*}")
    new=$(mktemp)
    for command; do echo "$user ALL=(root) NOPASSWD: $cell $command"; done >"$new"
    quietly visudo -c -f "$new"
    install -m 440 "$new" "$rule"
    rm "$new"
}
