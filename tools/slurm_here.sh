#!/usr/bin/env bash
# A Slurm of one node in this machine, to try `python -m benchmark.launch --executor slurm` for real.
#   sudo bash tools/slurm_here.sh start    installs slurm-wlm and munge (Debian, Ubuntu) and starts them
#   sudo bash tools/slurm_here.sh stop
# Nothing of the machine's own Slurm is touched: where one is configured, this refuses.
set -euo pipefail
conf=/etc/slurm/slurm.conf mark="# by tools/slurm_here.sh"

say() { echo "slurm_here: $*" >&2; }

ours() { grep -qs "^$mark" "$conf"; }

stop() {
    ours || { say "no Slurm of mine is here"; return; }
    for daemon in slurmd slurmctld munged; do
        pkill -x "$daemon" || true
        # one that still saves its state would let `start` think that it runs
        for _ in $(seq 60); do pgrep -x "$daemon" >/dev/null || break; sleep 0.5; done
    done
    rm -f "$conf" /etc/slurm/cgroup.conf
}

start() {
    if [ -f "$conf" ] && ! ours; then
        say "$conf is there already and not mine; use that cluster"; exit 1
    fi
    if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
        command -v apt-get >/dev/null || { say "no apt-get: install slurm-wlm and munge by hand"; exit 1; }
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q slurm-wlm munge >/dev/null
    fi
    local host cores memory
    host=$(hostname -s) cores=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p /etc/slurm /run/munge /var/log/munge /var/lib/munge /var/spool/slurmctld /var/spool/slurmd /var/log/slurm
    [ -s /etc/munge/munge.key ] || { mkdir -p /etc/munge; dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 2>/dev/null; }
    chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 400 /etc/munge/munge.key
    chmod 755 /run/munge
    chmod 711 /var/lib/munge
    chmod 700 /var/log/munge
    cat > "$conf" <<CONF
$mark
ClusterName=here
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
# so long a job waits that its node lost; two minutes, where nothing is said
AuthInfo=cred_expire=10
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=600
NodeName=$host CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    pgrep -x munged >/dev/null || runuser -u munge -- /usr/sbin/munged
    pgrep -x slurmctld >/dev/null || /usr/sbin/slurmctld
    pgrep -x slurmd >/dev/null || /usr/sbin/slurmd
    for _ in $(seq 30); do
        if sinfo -h -o %T 2>/dev/null | grep -q idle; then sinfo; return; fi
        sleep 1
    done
    say "no node became idle; see /var/log/slurm"; exit 1
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *) sed -n 2,5p "$0" >&2; exit 2 ;;
esac
