#!/usr/bin/env bash
# Train on several nodes, one process per GPU, through preemptions and time limits:
#
#   sbatch --nodes 4 --gpus-per-node 8 examples/slurm/train.sh examples/image_classification.py \
#       --output_dir /shared/runs/images --save_strategy epoch
#
# Some minutes before its time is up, or when it is preempted, the job is told to end (SIGTERM). Each process then saves
# at the end of the same update (`enable_jit_checkpoint`), and the job goes back into the queue, where it may get fewer
# nodes or more: the epoch goes on with the samples that it has left. The script has to take the flags of the training
# arguments and `--resume_from_checkpoint last`, as the ones in examples/ do. Written for a cluster with Slurm and an
# environment with this package on every node; adapt the lines marked (site). Not tested on a cluster.
#SBATCH --job-name=kakurenbo
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

script=${1:?name a training script, and after it its arguments}
shift

# module load cuda            # (site)
source .venv/bin/activate     # (site)

gpus=${SLURM_GPUS_ON_NODE:-1}
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# The launcher waits so many seconds for its processes to save before it kills them (30 by default).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240 OMP_NUM_THREADS=1

interrupted=
trap 'interrupted=yes; kill -TERM "$training"' TERM

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$gpus" --max-restarts 0 \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head_node:$((20000 + SLURM_JOB_ID % 10000))" \
    "$script" --enable_jit_checkpoint --resume_from_checkpoint last "$@" &
training=$!

# `wait` ends when the signal comes, and once more when the training has saved.
status=0
wait "$training" || status=$?
if [ -n "$interrupted" ]; then
    wait "$training" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
