"""Input from demonstrations: dataset files, videos, statistics, and the batches that training reads."""
