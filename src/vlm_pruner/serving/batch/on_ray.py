"""The windows of a job on the actors of a Ray cluster, by Ray Data."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_pruner.asking.models import open_reader
from vlm_pruner.errors import missing_package
from vlm_pruner.serving.batch.job import Answering, Job
from vlm_pruner.serving.batch.prepare import read_window
from vlm_pruner.serving.batch.rows import open_source
from vlm_pruner.serving.batch.store import Record

__all__ = ["OnRay"]


@dataclass(frozen=True)
class OnRay:
    """An `Engine` of `job.run_job`: every actor loads the model once and takes windows as it has time.

    Args:
        actors: how many; each has one GPU where the cluster has any.
        address: of a cluster that runs; None starts one on this machine.
    """

    actors: int = 1
    address: str | None = None

    def __call__(self, job: Job) -> Callable[[Mapping[int, Collection[int]]], Iterator[Record]]:
        """What computes windows; the model is opened by the actors."""
        return functools.partial(self._compute, job)

    def _compute(self, job: Job, todo: Mapping[int, Collection[int]]) -> Iterator[Record]:
        """The records of these windows, in no fixed order.

        Raises:
            BackendUnavailableError: Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise missing_package("--engine ray", error) or error from None
        began = not ray.is_initialized()
        if began:
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
        try:
            windows = [{"number": number, "known": sorted(known)} for number, known in todo.items()]
            read = ray.data.from_items(windows, override_num_blocks=len(windows)).map(
                _Reading, fn_constructor_args=(job,), concurrency=self.actors * max(1, job.workers), num_cpus=0.5
            )
            gpus = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 0.5}
            answered = read.flat_map(_Answering, fn_constructor_args=(job,), concurrency=self.actors, **gpus)
            for row in answered.iter_rows():
                yield Record.from_json(row["record"])
        finally:
            if began:
                ray.shutdown()


class _Reading:
    """An actor that reads pictures and prompts."""

    def __init__(self, job: Job) -> None:
        job.prepare()
        self._job = job
        self._source, self._reader = open_source(job.source, job.question), open_reader(job.model, **job.opening)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job = self._job
        window = read_window(self._reader, self._source, int(row["number"]), job.window, job.max_new_tokens)
        return {"window": pickle.dumps(window), "known": row["known"]}


class _Answering:
    """An actor that holds the model."""

    def __init__(self, job: Job) -> None:
        job.prepare()
        self._answering = Answering(job)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        known = [int(number) for number in row["known"]]
        return [{"record": record.to_json()} for record in self._answering(pickle.loads(row["window"]), known)]
