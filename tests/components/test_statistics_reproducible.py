"""The files of the statistics artifact are the same, byte for byte, on every machine."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from components.statistics.summary import summary_page
from components.statistics.tokenizer import measure
from pi_behavior.accumulators import DatasetAccumulator, delta_chunks
from pi_behavior.fast import FastTokenizer

accumulator, rng = DatasetAccumulator(), np.random.default_rng(0)
for task, length in enumerate((300, 1500, 700)):
    # uniform numbers: those of a normal distribution take logarithms, whose last digits depend on the machine
    state = np.cumsum(rng.uniform(-0.03, 0.03, (length, 23)), axis=0).astype(np.float32)
    actions = np.roll(state, -1, axis=0)
    accumulator.update(task, f"task {task}", 5, state, actions, {"length": length / 3})
statistics = accumulator.finish()
chunks = statistics.normalise_quantiles(delta_chunks(state, actions).reshape(-1, 30, 23))
tokenizer = FastTokenizer.train(chunks)
statistics = replace(statistics, fast=tokenizer)
statistics.save(folder := Path(sys.argv[1]))
(folder / "summary.html").write_text(summary_page(statistics, measured := measure(tokenizer, chunks)))
(folder / "metrics").write_text(repr(measured))
"""


def machines() -> list[dict[str, str]]:
    """Settings by which libraries compute as they do on other processors, of those that this one can be."""
    flags = Path("/proc/cpuinfo").read_text().split()
    found = [{"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "4"}]
    if "sse4_2" in flags:
        found[0] |= {
            "OPENBLAS_CORETYPE": "Prescott",
            "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
            "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
            "RAYON_NUM_THREADS": "1",
        }
    found += [{"OPENBLAS_CORETYPE": "Haswell"}] if "avx2" in flags else []
    found += [{"OPENBLAS_CORETYPE": "SkylakeX"}] if "avx512vl" in flags else []
    return found


def test_files_do_not_depend_on_the_machine(tmp_path: Path) -> None:
    contents = []
    for number, machine in enumerate(machines()):
        folder = tmp_path / str(number)
        subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], env={**os.environ, **machine}, check=True)
        contents.append(
            {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        )
    assert len(contents[0]) == 7
    for other in contents[1:]:
        assert {name for name in contents[0] | other if contents[0].get(name) != other.get(name)} == set()
