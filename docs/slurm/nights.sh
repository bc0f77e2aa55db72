#!/bin/bash
# One job a night: each makes what the store lacks of its night.
#   sbatch --array=0-30%16 docs/slurm/nights.sh s3://bucket/ztf 2020-08-01 [OPTION OF ztfzarr run…]
#SBATCH --job-name=ztfzarr
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=ztfzarr-%A_%a.log
set -euo pipefail

store=$1
night=$(date --utc --date="$2 + ${SLURM_ARRAY_TASK_ID:-0} days" +%F)

# Credentials come from the environment or AWS_PROFILE, not from here: job scripts are kept, and shown by squeue.
exec ztfzarr run "$store" --night "$night" --workers "${SLURM_CPUS_PER_TASK:-1}" "${@:3}"
