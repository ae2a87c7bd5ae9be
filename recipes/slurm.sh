#!/bin/bash
# One Slurm job that runs a recipe on all its nodes with Ray.
#
#     sbatch --nodes 4 --gpus-per-node 8 recipes/slurm.sh recipe.yaml /shared/runs
#
# The environment (.venv), the recipe, its data and the folder of runs must be on a file system that
# all nodes share. Add partition, account and time as your cluster wants them.
#SBATCH --job-name=biomistral
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
set -euo pipefail

recipe=${1:?which recipe?}
runs=${2:?which folder for runs?}
export PATH="${BIOMISTRAL_ENVIRONMENT:-$SLURM_SUBMIT_DIR/.venv}/bin:$PATH"
cd "$SLURM_SUBMIT_DIR"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 20000))
cpus=${SLURM_CPUS_ON_NODE:-1}
address=$(srun --nodes 1 --ntasks 1 --nodelist "$head" hostname --ip-address | awk '{print $1}'):$port

srun --nodes 1 --ntasks 1 --nodelist "$head" --overlap \
    ray start --head --port "$port" --num-cpus "$cpus" --block &
until timeout 2 bash -c "</dev/tcp/${address%:*}/$port" 2>/dev/null; do sleep 1; done
if ((${#nodes[@]} > 1)); then
    others=$(IFS=,; echo "${nodes[*]:1}")
    srun --nodes $((${#nodes[@]} - 1)) --ntasks $((${#nodes[@]} - 1)) --nodelist "$others" --overlap \
        ray start --address "$address" --num-cpus "$cpus" --block &
fi

# On the head node, where the driver of Ray must be.
srun --nodes 1 --ntasks 1 --nodelist "$head" --overlap \
    biomistral run "$recipe" --out "$runs" --cluster "$address" --cpus-per-task "${CPUS_PER_TASK:-8}"
