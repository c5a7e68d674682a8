"""Stage `dataset`: fetch a version of the demonstrations and check it."""
