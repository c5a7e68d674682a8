"""One runnable module per figure that the project claims."""
