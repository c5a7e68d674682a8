"""Stage `statistics`: normalisation, correlation and tables from the demonstrations."""
