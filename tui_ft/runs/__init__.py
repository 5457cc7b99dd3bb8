"""The contract between terminal and worker: a run is a directory, and the directory is the only channel."""
