"""What a model has done, in the terms of Triton's statistics extension."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Takes `count` events of `seconds` together."""
        self.count += count
        self.ns += int(seconds * 1e9)


@dataclass(slots=True)
class BatchStats:
    """The runs of one number of rows."""

    infer: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class ModelStats:
    """Counted since the model was loaded. Updated on the event loop's thread only.

    Attributes:
        inference_count: Rows answered.
        execution_count: Runs of the model.
        last_inference_ms: Since the epoch; 0 for never.
        success: Whole requests, from the last byte to the answer.
        fail: Likewise, those that ended in an error.
        queue: From the last byte to the run's begin (for inline calls with the decoding).
        compute_input: Putting the batch together.
        compute_infer: The model itself.
        compute_output: Taking its answer apart.
        batches: By the rows of a run.
    """

    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, BatchStats] = field(default_factory=dict)

    def ran(self, rows: int, calls: int, input_s: float, infer_s: float, output_s: float) -> None:
        """Takes one run of the model.

        Args:
            rows: Of the batch.
            calls: That shared it.
            input_s: Seconds of putting the batch together.
            infer_s: Seconds of the model.
            output_s: Seconds of taking its answer apart.
        """
        self.execution_count += 1
        self.inference_count += rows
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.compute_input.add(input_s * calls, calls)
        self.compute_infer.add(infer_s * calls, calls)
        self.compute_output.add(output_s * calls, calls)
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchStats()
        batch.infer.add(infer_s)
