"""What is recorded of GPUs, with a program in place of nvidia-smi that answers in its format."""

import time

import pytest

from components.runtime.gpus import _MOST, Gpus


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Sets what nvidia-smi prints."""
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    def set_answer(text, code=0):
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)

    return set_answer


def watch(seconds=10.0):
    with Gpus(period=0.01) as gpus:
        end = time.monotonic() + seconds
        while len(gpus.samples) < 2 and time.monotonic() < end:
            time.sleep(0.01)
    return gpus.record()


def test_means_over_the_gpus(answer):
    answer("NVIDIA H200, 90, 1000, 4000\nNVIDIA H200, 70, 3000, 4000")
    found = watch()
    assert found["names"] == ["NVIDIA H200", "NVIDIA H200"]
    assert set(found["busy"]) == {80.0}
    assert set(found["memory"]) == {50.0}


@pytest.mark.parametrize("text", ["", "NVIDIA A100, [N/A], 5, 10", "no devices were found"])
def test_nothing_is_recorded_of_what_is_not_understood(answer, text):
    answer(text)
    assert watch(0.3) is None


def test_without_gpus_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert watch(0.05) is None


def test_a_long_stage_keeps_few_samples(answer):
    answer("NVIDIA L40S, 50, 1, 4")
    gpus = Gpus(period=1.0)
    for _ in range(_MOST + 2):
        gpus._look()
    assert len(gpus.samples) <= _MOST // 2 + 2
    assert gpus.period == 2.0
    assert {one.memory for one in gpus.samples} == {25.0}
