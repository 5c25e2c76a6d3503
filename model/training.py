"""The loop of one worker: samples, passes, update, log, checkpoint; with torch alone, whoever starts it.

Weights are float32 and matrix products, if wished, bfloat16 by autocast: with weights in bfloat16, whose steps are
0.4 % of a value, updates of a learning rate of 1e-5 would be lost. (The authors' DeepSpeed keeps float32 copies to the
same end.)

The loss of a step is the mean over all its tokens, or masks, wherever they were computed: it does not depend on how
many workers and passes they were shared out to, but for rounding. On a CPU a training that was interrupted is equal to
one that was not, to the last bit, with one or two workers (a sum of more depends on its order).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model import debug, environment, optimisation, samples, tiling
from model.inputs import Preparer, Sample
from model.mixing import Plan
from model.samples import Portion, Portions, Work
from model.train_checkpoints import FOLDER, Checkpoints, Score, read_state
from model.train_config import TrainConfig
from model.train_log import Log, Row
from model.train_outcome import Outcome
from model.training_data import TrainingData
from model.workers import Workers
from model.wowseg import Output, WowSeg
from pipeline.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training, in a folder of its own; every worker makes the same."""

    config: TrainConfig
    out: Path
    data: list[TrainingData]
    device: torch.device

    def checkpoints(self) -> Checkpoints:
        """Return where they are."""
        return Checkpoints(self.out / FOLDER, self.config.training.keep)

    def plan(self, work: Work) -> Plan:
        """Return the steps. Raises `UserError` if there are none."""
        sizes, config = {data.report.name: len(data) for data in self.data}, self.config
        return Plan(sizes, config.learnt_from(), config.training, grouped=config.data.grouped, work=work)

    def work(self, side: int = tiling.SIDE, grid: int = 16) -> Work:
        """Return what samples cost, for a model with tiles of `side` px and `grid` tokens along them."""
        chosen, by_name = self.config.model, {data.report.name: data for data in self.data}
        return Work(
            data=by_name,
            config=self.config.data,
            seed=self.config.training.seed,
            scale=chosen.scale,
            every_cell=chosen.encoder != "mask2token",
            side=side,
            grid=grid,
        )

    def run(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Train to the end, or until `stop` says so in any worker; from the last checkpoint, if there is one."""
        workers = Workers(self.device)
        loop = _Loop(self, workers)
        try:
            return loop.run(stop)
        finally:
            loop.close()


def start(config: TrainConfig, source: Path | None, device: torch.device) -> WowSeg:
    """Return the model to train: from a checkpoint of this training, from that of the configuration, or random.

    Raises `UserError` for a checkpoint of another architecture.
    """
    chosen = config.model
    settings = {name: value for name, value in msgspec.to_builtins(chosen.settings()).items() if name != "template"}
    path = source or (Path(chosen.path) if chosen.path else None)
    if path is None:
        model = debug.debug(config.training.seed, **settings).to(device)
        model.network.set_attn_implementation({"text_config": chosen.attention})
    else:
        model = WowSeg.from_pretrained(
            path,
            device=str(device),
            dtype=torch.float32,
            attention_implementation=chosen.attention,
            **settings,
        )
    if config.training.gradient_checkpointing:
        model.network.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


class _Loop:
    """What one run of a training holds."""

    def __init__(self, training: Training, workers: Workers) -> None:
        self.training, self.workers, self.config = training, workers, training.config
        torch.manual_seed(self.config.training.seed + workers.number)
        self.checkpoints = training.checkpoints()
        latest = self.checkpoints.latest()
        self.model = start(self.config, latest, training.device)
        self.wrapped: Any = DistributedDataParallel(self.model) if workers.count > 1 else self.model
        preparer = self.model.preparer
        self.portions = self._portions(preparer)
        self.steps = self.portions.plan.steps
        self.optimiser = optimisation.optimiser(self.model, self.config.optimisation)
        self.schedule = optimisation.schedule(self.optimiser, self.config.optimisation, self.steps)
        self.step = self.saved = self._resume(latest) if latest else 0
        self.log = Log(training.out, self.step) if workers.first else None
        self.since: list[float] = []
        self.environment = environment.describe(self.config, [data.report for data in training.data], workers)

    def _portions(self, preparer: Preparer) -> Portions:
        work = self.training.work(preparer.side, preparer.grid)
        shown = msgspec.structs.replace(preparer.settings, tiles=self.config.data.tiles)
        trained = Preparer(
            tokenizer=preparer.tokenizer, text=preparer.text, settings=shown, side=preparer.side, grid=preparer.grid
        )
        passes = self.config.training.micro_batch
        where = self.workers.number, self.workers.count
        return Portions(self.training.plan(work), work, trained, self.config.model.sequence(), passes, *where)

    def _resume(self, latest: Path) -> int:
        state = read_state(latest)
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if self.workers.number < len(state["random"]):
            _set_random(state["random"][self.workers.number])
        return int(state["step"])

    def run(self, stop: Callable[[], bool]) -> Outcome:
        """Make the steps that are left."""
        portions = samples.load(self.portions, self.step, self.steps, self.config.data.loaders)
        while self.step < self.steps:
            began = time.perf_counter()
            portion = next(portions)
            waited = time.perf_counter()
            total = self._total(portion, stop())
            if total.failed:
                return self._failed("; ".join(filter(None, self.workers.gather(portion.failed))))
            if total.stop:
                return self._end("stopped")
            loss, norm, doubtful = self._learn(portion, total)
            if not math.isfinite(loss) or not math.isfinite(norm):
                return self._failed(self._not_finite(loss, norm, portion, doubtful))
            rate = self._update()
            spent = self.workers.sums([waited - began, time.perf_counter() - waited])
            waiting, computing = (seconds / self.workers.count for seconds in spent)
            images, masks, tokens = int(total.images), int(total.masks), int(total.tokens)
            self._write(Row(self.step, portion.epoch, loss, rate, norm, images, masks, tokens, waiting, computing))
            if self.step % self.config.training.checkpoint_every == 0 and (trouble := self._save()):
                return self._failed(trouble)
        return self._end("finished")

    def _total(self, portion: Portion, stop: bool) -> _Total:
        """Return what all workers have before them; so all know alike how to weigh, and whether to stop."""
        images = 0 if portion.spare else sum(map(len, portion.batches))
        counts = [portion.targets(), portion.masks(), portion.tokens(), images, stop, bool(portion.failed)]
        return _Total(*self.workers.sums([float(count) for count in counts]))

    def _learn(self, portion: Portion, total: _Total) -> tuple[float, float, list[str]]:
        """Add up the gradient of a step.

        Return its loss, the gradient's length before clipping, and the images of passes whose loss is not finite.
        """
        self.optimiser.zero_grad()
        whole = 0.0
        doubtful: list[str] = []
        for number, batch in enumerate(portion.batches):
            last = number == len(portion.batches) - 1
            with nullcontext() if last or self.workers.count == 1 else self.wrapped.no_sync():
                loss = self._share(batch, total) * (not portion.spare)
                torch.autograd.backward(loss * self.workers.count)  # the workers' gradients are averaged
            whole += loss.item()
            if not math.isfinite(loss.item()):
                doubtful += portion.names[number]
        norm = optimisation.clip(self.model.parameters(), self.config.optimisation)
        return self.workers.sums([whole])[0], norm.item(), doubtful

    def _share(self, batch: list[Sample], total: _Total) -> Tensor:
        """Return what a pass adds to the step's loss."""
        low = self.config.training.precision == "bf16"
        with torch.autocast(self.training.device.type, torch.bfloat16, enabled=low):
            output: Output = self.wrapped(batch)
        if self.config.training.loss == "tokens":
            return output.losses.sum() / total.targets
        return output.over_instances() * sum(len(sample.rescued) for sample in batch) / total.masks

    def _update(self) -> float:
        """Change the weights; return the learning rate by which."""
        rate = float(self.schedule.get_last_lr()[0])
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        return rate

    def _write(self, row: Row) -> None:
        self.since.append(row.loss)
        if self.log:
            self.log.write(row)

    # --- ends -----------------------------------------------------------------------------------------------

    def _not_finite(self, loss: float, norm: float, portion: Portion, doubtful: list[str]) -> str:
        every = [
            name for names in self.workers.gather([name for some in portion.names for name in some]) for name in names
        ]
        found = [name for names in self.workers.gather(doubtful) for name in names]
        return (
            f"step {self.step + 1}: loss {loss:g}, gradient of length {norm:g}: not finite. In it: "
            f"{', '.join(found or every)}. Nothing was learnt from this step. Look at these, or lower "
            "optimisation.learning_rate."
        )

    def _failed(self, message: str) -> Outcome:
        return Outcome("failed", self.step, message)

    def _end(self, state: Literal["finished", "stopped"]) -> Outcome:
        if self.step > self.saved and (trouble := self._save()):
            return self._failed(trouble)
        return Outcome(state, self.step)

    def _save(self) -> str:
        """Write a checkpoint; return why it could not be, or nothing."""
        random = self.workers.gather(_random())
        trouble = ""
        if self.workers.first:
            state = {
                "step": self.step,
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": random,
            }
            reached = Score(self.step, sum(self.since) / len(self.since))
            try:
                self.checkpoints.save(self.model, state, self.environment, reached)
            except UserError as error:
                trouble = str(error)
        self.since, self.saved = [], self.step
        return "".join(self.workers.gather(trouble))

    def close(self) -> None:
        """Close the log."""
        if self.log:
            self.log.close()


class _Total(NamedTuple):
    """Sums over all workers."""

    targets: float
    masks: float
    tokens: float
    images: float
    stop: float
    failed: float


def _random() -> dict[str, Any]:
    """Return the state of everything that draws random numbers."""
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "gpu": gpu}


def _set_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["gpu"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["gpu"])
