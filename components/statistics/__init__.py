"""The statistics stage: normalisation, correlation and tables from the demonstrations."""
