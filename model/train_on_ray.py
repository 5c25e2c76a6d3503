"""Training as workers of Ray Train: starts them, follows them, starts them again when they die.

Ray places the workers, joins them to one torch process group, notices when one dies and starts all of them again; they
go on from the last checkpoint, as does the same command after the driver died. Checkpoints and log lie in the folder of
the training, on a disk that all nodes see, not in Ray's storage, which would copy each one once more and could not be
loaded as it is. What comes back is read from the log, so the bar shows what the log holds.

A training's folder:

    run.json         what makes this training this one; going on with anything else is refused
    data/            region samples by image (model/training_data.py)
    checkpoints/     (model/train_checkpoints.py)
    metrics.csv, curve.png, tensorboard/    (model/train_log.py)
    outcome.json     how the last run ended
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from model import train_log, training_data
from model.mixing import Plan
from model.train_checkpoints import FOLDER, Checkpoints
from model.train_config import TrainConfig
from model.train_log import Row
from model.train_outcome import Outcome
from model.training_data import TrainingData
from pipeline import cluster, locks
from pipeline.decoding import decoded
from pipeline.errors import UsageError, UserError
from pipeline.files import Folder

RUN, OUTCOME, _STOP, _DATA, _RAY = "run.json", "outcome.json", "stop", "data", ".ray"
_LOOK_EVERY = 1.0  # seconds, at the log
_DRAW_EVERY = 60.0  # seconds; here, so that no GPU waits for a picture


def prepare(config: TrainConfig, out: Path) -> list[TrainingData]:
    """Prepare all data sets, check that the training in `out`, if there is one, is this one, and note what it is.

    Raises `UsageError` for settings that do not fit together or with the training there, `UserError` for the data.
    """
    config.accumulated()
    config.learnt_from()
    if config.model.path and not Path(config.model.path).is_dir():
        raise UsageError(f"model.path: no folder {config.model.path}. Elsewhere: --set model.path=DIR.")
    data = prepare_data(config, out)
    identity = {**config.identity(), "fingerprints": {one.report.name: one.report.fingerprint for one in data}}
    path = out / RUN
    if path.is_file():
        if changed := list(_changes(_before(path), identity)):
            raise UsageError(
                f"{out} holds another training: {', '.join(changed)}. Take another --out, or its settings."
            )
    else:
        Folder(str(out)).replace(RUN, msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
    return data


def prepare_data(config: TrainConfig, out: Path) -> list[TrainingData]:
    """Prepare all data sets. Raises as `prepare` does."""
    return [training_data.prepare(name, config.data, out / _DATA) for name in config.learnt_from()]


def _before(path: Path) -> dict[str, Any]:
    return decoded(path.read_bytes(), dict[str, Any], f"{path}", "Take another --out, or restore it.")


def _changes(before: dict[str, Any], now: dict[str, Any], above: str = "") -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{above}{key}.")
        elif old != new:
            yield f"{above}{key} is {old!r} there, {new!r} here"


def steps(config: TrainConfig, data: Sequence[TrainingData]) -> int:
    """Return how many updates a training makes in all."""
    return Plan({one.report.name: len(one) for one in data}, config.learnt_from(), config.training).steps


def fit(config: TrainConfig, out: Path, watch: Callable[[list[Row]], None]) -> Outcome:
    """Train what `prepare` has prepared to its end, or until SIGTERM or Ctrl-C, which save; `watch` gets new rows.

    Raises `UserError` when the cluster is too small, or workers keep dying.
    """
    with locks.hold(Folder(str(out / "locks")), "train") as lock, cluster.session(config.cluster) as session:
        lock.works_through(session.name)
        for name in (OUTCOME, _STOP):
            (out / name).unlink(missing_ok=True)
        train_log.cut(out, Checkpoints(out / FOLDER, config.training.keep).step())
        gpus = _gpus(config)
        with _saving_when_told_to_stop(out / _STOP), _following(out, watch):
            _fit(config, out, gpus)
    shutil.rmtree(out / _RAY, ignore_errors=True)
    return msgspec.json.decode((out / OUTCOME).read_bytes(), type=Outcome)


def _gpus(config: TrainConfig) -> bool:
    """Say whether the cluster has GPUs. Raises `UserError` if it has too little for the workers: they would wait."""
    import ray

    found, wanted = ray.cluster_resources(), config.training.workers
    kind = "GPU" if found.get("GPU") else "CPU"
    if found.get(kind, 0) < wanted:
        raise UserError(f"training.workers = {wanted}, but the cluster has {found.get(kind, 0):.0f} {kind}s.")
    return kind == "GPU"


def _fit(config: TrainConfig, out: Path, gpus: bool) -> None:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    shutil.rmtree(out / _RAY, ignore_errors=True)
    trainer = TorchTrainer(
        work,
        train_loop_config={"config": config.model_dump(), "out": str(out)},
        scaling_config=ScalingConfig(num_workers=config.training.workers, use_gpu=gpus),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=RunConfig(
            name="train",
            storage_path=str(out / _RAY),
            failure_config=FailureConfig(max_failures=config.training.restarts),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        _apart(trainer.fit)
    except TrainingFailedError as error:
        raise UserError(
            f"the workers died: {_cause(error)}\nThe last checkpoint is kept; the same command goes on from it."
        ) from error


def _apart(work: Callable[[], Any]) -> None:
    """Call it in another thread: in the main one Ray would take Ctrl-C for itself, and save nothing."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _cause(error: Any) -> str:
    failures = getattr(error, "worker_failures", None) or {0: error}
    return "; ".join(dict.fromkeys(str(one).strip().splitlines()[-1] for one in failures.values()))


def work(told: dict[str, Any]) -> None:
    """Be one worker: called by Ray Train in a process of its own."""
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device

    from model.training import Training

    out, config = Path(told["out"]), TrainConfig.model_validate(told["config"])
    if not (out / RUN).is_file():
        raise UserError(f"{out} is not the same folder on all nodes: --out must be on a disk that they share.")
    device: Any = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.training.workers))  # Ray allows a library one
    data = [TrainingData(out / _DATA / f"{name}.arrow") for name in config.learnt_from()]
    try:
        ended = Training(config=config, out=out, data=data, device=device).run((out / _STOP).exists)
    except UserError as error:
        ended = Outcome("failed", 0, str(error))
    if get_context().get_world_rank() == 0:
        Folder(str(out)).replace(OUTCOME, msgspec.json.encode(ended))


@contextmanager
def _saving_when_told_to_stop(mark: Path) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C leave the mark at whose sight the workers save and stop; a second one stops at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def leave(number: int, _: Any) -> None:
        mark.touch()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        mark.unlink(missing_ok=True)


@contextmanager
def _following(out: Path, watch: Callable[[list[Row]], None]) -> Iterator[None]:
    """Tell of new rows of the log, and draw the curve, until the block ends."""
    ended = threading.Event()

    def follow() -> None:
        last = max((row.step for row in train_log.latest(out)), default=0)
        drawn, over = time.monotonic(), False
        while not over:
            over = ended.wait(_LOOK_EVERY)
            new = [row for row in train_log.latest(out) if row.step > last]
            if new:
                last = new[-1].step
                watch(new)
            if over or time.monotonic() - drawn > _DRAW_EVERY:
                with suppress(OSError):  # a full disk is told by those who save
                    train_log.draw(out)
                drawn = time.monotonic()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
