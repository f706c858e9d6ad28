"""What a transformer is. This package knows nothing of files, training, serving or parallelism."""
