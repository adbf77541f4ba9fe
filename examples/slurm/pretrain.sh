#!/usr/bin/env bash
# Pre-train on images from formulas on several nodes, one process per GPU:
#
#   sbatch --nodes 32 --gpus-per-node 4 examples/slurm/pretrain.sh vit-base-exfractaldb-21k runs/exfractaldb
#
# The images are drawn where they are needed: no file system has to serve them. Sent again after a time limit or a
# failure, it goes on from the newest checkpoint that was written to its end. Written for a cluster with Slurm and an
# environment with this package on every node; adapt the lines marked (site).
#SBATCH --job-name=kakurenbo
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=%x-%j.out
set -euo pipefail

preset=${1:?name a preset: deit-tiny-fractaldb-1k or vit-base-exfractaldb-21k}
output=${2:?name a folder that all nodes see}
shift 2

# module load cuda            # (site)
source .venv/bin/activate     # (site)

gpus=${SLURM_GPUS_ON_NODE:-1}
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

srun --kill-on-bad-exit=1 bash -c "accelerate launch \
    --multi_gpu \
    --num_machines $SLURM_NNODES --num_processes $((SLURM_NNODES * gpus)) --machine_rank \$SLURM_NODEID \
    --main_process_ip $head_node --main_process_port $((20000 + SLURM_JOB_ID % 10000)) \
    --rdzv_backend static --mixed_precision bf16 --dynamo_backend no \
    examples/pretrain_fdsl.py --preset $preset --output_dir $output --resume_from_checkpoint last $*"
