#!/bin/bash
# attnfd-ray on Slurm: Ray on every node of the job, for as long as the job lasts. Edit the resources, then
#   ATTNFD_VENV=/shared/attnfd-venv ATTNFD_STORE=/shared/results sbatch cluster/slurm.sh tune /shared/camvid.yaml
# The same line again goes on where it stopped.
#SBATCH --job-name=attnfd-ray
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=2
#SBATCH --time=24:00:00

set -euo pipefail

: "${ATTNFD_VENV:?the virtual environment that holds attnfd-ray, on a file system that every node sees}"
: "${ATTNFD_STORE:?the results directory, on a file system that every node sees}"
if (($# == 0)); then
    echo "slurm.sh: no command; give what attnfd-ray shall do: sbatch cluster/slurm.sh tune FILE" >&2
    exit 2
fi
# shellcheck disable=SC1091
source "$ATTNFD_VENV/bin/activate"

# One token for all nodes, of this job alone; srun hands the environment on.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# Left over from a local run, the one would keep Ray on this node and the other send it elsewhere.
unset RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER RAY_ADDRESS

# This script runs on the job's first node, which becomes the head.
head_ip="$(hostname -I | cut -d' ' -f1)"
address="${ATTNFD_HEAD_IP:-$head_ip}:6379"

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_PER_TASK:-0}" \
    -- env RAY_ADDRESS="$address" attnfd-ray "$@"
