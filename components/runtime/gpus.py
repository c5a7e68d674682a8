"""Which GPUs a stage has and how busy they are, as nvidia-smi says; nothing where there is none."""

import shutil
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

_COMMAND = ("nvidia-smi", "--query-gpu=name,utilization.gpu,memory.used,memory.total")
_FORMAT = "--format=csv,noheader,nounits"
_MOST = 120
"""Samples that are kept; with more, neighbours are averaged and taken half as often."""


@dataclass(frozen=True)
class Sample:
    """All GPUs at a moment, in per cent."""

    busy: float
    """Mean share of time in which kernels ran."""
    memory: float
    """Mean share of memory that is taken."""


@dataclass
class Gpus:
    """Samples the GPUs in a thread until the context is left."""

    period: float = 10.0
    """Seconds between two samples."""
    names: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> "Gpus":
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpus", daemon=True)
        if shutil.which(_COMMAND[0]):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def record(self) -> dict[str, Any] | None:
        """What lineage keeps: names, seconds between samples, and samples; None without GPUs."""
        if not self.samples:
            return None
        columns = {
            name: [round(getattr(one, name), 1) for one in self.samples] for name in ("busy", "memory")
        }
        return {"names": self.names, "period": self.period, **columns}

    def _watch(self) -> None:
        while True:
            with suppress(OSError, ValueError, subprocess.SubprocessError):  # of no weight for the stage
                self._look()
            if self._ended.wait(self.period):
                return

    def _look(self) -> None:
        answer = subprocess.run([*_COMMAND, _FORMAT], capture_output=True, text=True, check=True, timeout=30)
        names, busy, memory = [], [], []
        for line in answer.stdout.splitlines():
            name, use, taken, total = line.rsplit(",", 3)
            names.append(name.strip())
            busy.append(float(use))
            memory.append(100 * float(taken) / float(total))
        samples = [*self.samples, Sample(fmean(busy), fmean(memory))]
        self.names = names
        if len(samples) > _MOST:
            pairs = zip(samples[::2], samples[1::2], strict=False)
            samples = [Sample((a.busy + b.busy) / 2, (a.memory + b.memory) / 2) for a, b in pairs]
            self.period *= 2
        self.samples = samples
