#!/bin/bash
# One Slurm job that runs a recipe on all its nodes with Ray.
#
#     sbatch --nodes 4 --gpus-per-node 8 recipes/slurm.sh recipe.yaml /shared/runs
#
# The environment (.venv, or BIOMISTRAL_ENVIRONMENT), the recipe, its data and the folder of runs must
# be on a file system that all nodes share. Add partition, account and time as your cluster wants them.
# CPUS_PER_TASK: processors of a task (8). NPROC: processes that train a model together (all GPUs of
# the job, or 1). Submitted again, it goes on where it ended.
#SBATCH --job-name=biomistral
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
set -euo pipefail

recipe=${1:?which recipe?}
runs=${2:?which folder for runs?}
export PATH="${BIOMISTRAL_ENVIRONMENT:-$SLURM_SUBMIT_DIR/.venv}/bin:$PATH"
export RAY_USAGE_STATS_ENABLED=0 RAY_task_oom_retries=5
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 # who was given no GPU sees none
# A secret of this job: nobody else on these nodes can give Ray work.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d " \n")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
cd "$SLURM_SUBMIT_DIR"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
cpus=${SLURM_CPUS_ON_NODE:-1}
gpus=$((${SLURM_GPUS_ON_NODE:-0} * ${#nodes[@]}))
nproc=${NPROC:-$((gpus > 0 ? gpus : 1))}
# A step gets one processor unless it asks for more.
step=(srun --overlap --cpus-per-task "$cpus")

port=$((20000 + SLURM_JOB_ID % 20000))
host=$("${step[@]}" --nodes 1 --ntasks 1 --nodelist "$head" hostname --all-ip-addresses |
    tr ' ' '\n' | grep -m 1 -E '^[0-9]+(\.[0-9]+){3}$' || echo "$head")
address=$host:$port

"${step[@]}" --nodes 1 --ntasks 1 --nodelist "$head" \
    ray start --head --node-ip-address "$host" --port "$port" --num-cpus "$cpus" \
    --include-dashboard false --block &
ray_head=$!
until timeout 2 bash -c "</dev/tcp/$host/$port" 2>/dev/null; do
    kill -0 "$ray_head" 2>/dev/null || { echo "Ray did not start on $head, see above" >&2; exit 1; }
    sleep 1
done
if ((${#nodes[@]} > 1)); then
    others=$(IFS=,; echo "${nodes[*]:1}")
    "${step[@]}" --nodes $((${#nodes[@]} - 1)) --ntasks $((${#nodes[@]} - 1)) --nodelist "$others" \
        ray start --address "$address" --num-cpus "$cpus" --block &
fi

# On the head node, where the driver of Ray must be.
"${step[@]}" --nodes 1 --ntasks 1 --nodelist "$head" \
    biomistral run "$recipe" --out "$runs" --cluster "$address" \
    --cpus-per-task "${CPUS_PER_TASK:-8}" --nproc "$nproc"
