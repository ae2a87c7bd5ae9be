"""What a run tells while it trains: TensorBoard, Weights & Biases, speed and energy.

None of it is part of a result. Speed and energy go to ``throughput.volatile.json`` beside the model,
which counts for no digest; event files go where the settings or the caller say. Knows nothing about models.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomistral.artifacts import VOLATILE_SUFFIX
from biomistral.errors import require
from biomistral.recipe.settings import PretrainSettings
from biomistral.recipe.tuning import TuningSettings

THROUGHPUT = "throughput" + VOLATILE_SUFFIX
_RAPL = Path("/sys/class/powercap")  # energy counters of Intel and AMD processors


class Trackers:
    """TensorBoard, and Weights & Biases if the settings ask for it.

    TensorBoard's events go to the folder that the settings name, else to ``board``, if that is given
    and TensorBoard is installed. Raises ``MissingDependencyError`` if a library that the settings
    ask for is not.
    """

    def __init__(
        self,
        settings: PretrainSettings | TuningSettings,
        step: int = 0,
        board: Path | None = None,
    ) -> None:
        self._board: Any = None
        self._run: Any = None
        if settings.tensorboard is not None:
            require("tensorboard", extra="training", purpose=f"tensorboard of {settings.name}")
            self._board = _writer(Path(settings.tensorboard) / settings.name, step)
        elif board is not None and importlib.util.find_spec("tensorboard") is not None:
            if step == 0:
                for events in board.glob("events.out.tfevents.*"):  # of an earlier model
                    events.unlink(missing_ok=True)
            self._board = _writer(board, step)
        elif board is not None:
            _say_once(
                "TensorBoard is not installed, so training writes no events for it; the report has "
                "the curves (pip install 'biomistral[training]')"
            )
        if settings.wandb is not None:
            require("wandb", extra="wandb", purpose=f"wandb of {settings.name}")
            import wandb

            self._run = wandb.init(
                project=settings.wandb,
                name=settings.name,
                config=settings.model_dump(mode="json"),
                resume="allow",
            )

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on numbers of a step."""
        for name, value in values.items() if self._board is not None else ():
            self._board.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is held back."""
        if self._board is not None:
            self._board.close()
        if self._run is not None:
            self._run.finish()


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard.writer import SummaryWriter

    # After a resumed run, points of steps that were lost are not shown twice.
    return SummaryWriter(folder, purge_step=step or None)


@functools.cache
def _say_once(text: str) -> None:
    warnings.warn(text, stacklevel=2)


class Meter:
    """Tokens a second since it was made, and the energy used, where the hardware tells it."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._energy = energy_joules()
        self._tokens = 0

    def add(self, num_tokens: int) -> None:
        """Count tokens that have gone through the model."""
        self._tokens += num_tokens

    def tokens_per_second(self) -> float:
        """Mean since the start."""
        return self._tokens / max(time.perf_counter() - self._started, 1e-9)

    def facts(self) -> dict[str, Any]:
        """What to keep of this run; after a resumed one, of its last part."""
        facts: dict[str, Any] = {
            "seconds": round(time.perf_counter() - self._started, 3),
            "tokens": self._tokens,
            "tokens_per_second": round(self.tokens_per_second(), 1),
        }
        now = energy_joules()
        if now is not None and self._energy is not None and now >= self._energy:
            facts["energy_watt_hours"] = round((now - self._energy) / 3600, 3)
        return facts


def energy_joules() -> float | None:
    """Energy counters of the GPUs, else of the processors; None where there are none to read."""
    joules = _gpu_joules()
    if joules is not None:
        return joules
    with contextlib.suppress(OSError, ValueError):
        # Packages only (intel-rapl:0): their parts are counted in them.
        counters = [
            p for p in _RAPL.glob("intel-rapl:*/energy_uj") if p.parent.name.count(":") == 1
        ]
        if counters:
            return sum(int(path.read_text(encoding="ascii")) for path in counters) / 1e6
    return None


def _gpu_joules() -> float | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        millijoules = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)
    except pynvml.NVMLError:  # no GPU, or one too old to count
        return None
    return millijoules / 1e3 if handles else None
