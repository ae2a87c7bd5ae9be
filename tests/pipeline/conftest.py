from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from biomistral.recipe import Recipe, parse_recipe

# One step of every kind, each as small as it can be.
SMALL = """
name: small
seed: 3
models:
  blank:
    architecture:
      hidden_size: 32
      intermediate_size: 64
      num_hidden_layers: 1
      num_attention_heads: 2
      num_key_value_heads: 2
      max_position_embeddings: 1024
    tokenizer: {corpora: [general], vocabulary_size: 400}
corpus:
  - {name: general, texts: "${WORLD}/general/en.jsonl", sequence_length: 64, minimum_words: 5}
  - name: articles
    articles: ${WORLD}/articles/fr/*.xml
    sequence_length: 64
    minimum_words: 5
    held_out_fraction: 0.2
pretrain:
  - {name: base, model: blank, corpus: general, epochs: 0.02, rows_per_step: 4, precision: float32}
  - {name: medical, model: base, corpus: articles, epochs: 0.05, rows_per_step: 4, precision: float32}
merge:
  - {name: slerp, method: slerp, base: base, models: [{model: medical}], t: 0.5}
  - {name: dare, method: dare_ties, base: base, models: [{model: medical, density: 0.5}]}
quantize:
  - {name: bnb, model: medical, method: bitsandbytes, bits: 8}
  - {name: awq, model: medical, method: awq, group_size: 16, corpus: articles, calibration_rows: 2}
benchmark: {data: "${WORLD}/benchmark"}
evaluate:
  models: [base, medical, slerp, dare, bnb, awq]
  tasks: [treatment, trial]
  languages: [en, fr]
  shots: 1
  seeds: [1]
  scoring: [letter, cloze]
  limit: 4
  precision: float32
  ensembles: [{name: both, models: [base, medical]}]
"""


class Machines:
    """A Ray cluster on this machine: a head without processors, and workers of one each."""

    def __init__(self, ray_cluster) -> None:
        self.ray_cluster = ray_cluster
        self.address: str = ray_cluster.address
        self.workers = [ray_cluster.add_node(num_cpus=1) for _ in range(2)]
        ray_cluster.wait_for_nodes()

    def kill_one(self) -> None:
        self.ray_cluster.remove_node(self.workers.pop(), allow_graceful=False)

    def replace(self) -> None:
        while len(self.workers) < 2:
            self.workers.append(self.ray_cluster.add_node(num_cpus=1))
        self.ray_cluster.wait_for_nodes()


@pytest.fixture(scope="session")
def ray_machines():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'biomistral[cluster]'")
    from ray.cluster_utils import Cluster as RayCluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        ray_cluster = RayCluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                # That a machine is dead is known after a second and not after twenty.
                "_system_config": {"health_check_failure_threshold": 1},
            },
        )
        yield Machines(ray_cluster)
        ray_cluster.shutdown()


@pytest.fixture
def machines(ray_machines):
    """Two machines, of which a test may kill one."""
    ray_machines.replace()
    return ray_machines


@pytest.fixture(scope="session")
def small_text() -> str:
    """The recipe with one step of every kind, as text; ``WORLD`` is the folder of its data."""
    return SMALL


@pytest.fixture(scope="session")
def world(miniature_world: Path, tmp_path_factory) -> Path:
    """Only those files of the invented world that the small recipe reads. Read only."""
    folder: Path = tmp_path_factory.mktemp("small") / "world"
    (folder / "general").mkdir(parents=True)
    shutil.copy(miniature_world / "general/en.jsonl", folder / "general")
    shutil.copytree(miniature_world / "articles/fr", folder / "articles/fr")
    for task in ("treatment", "trial"):
        shutil.copytree(miniature_world / "benchmark" / task, folder / "benchmark" / task)
    return folder


@pytest.fixture(scope="session")
def small(world: Path) -> Callable[..., Recipe]:
    """Return a function that parses the small recipe with changes."""

    def parse(*changes: str, data: Path = world, text: str = SMALL) -> Recipe:
        return parse_recipe(text, changes=changes, environment={"WORLD": str(data)})

    return parse
