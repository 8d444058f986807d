"""The process that answers HTTP. It knows a root and its settings, and nothing else."""
