"""The command line: a thin face of the Python API. Commands are imported when they are called."""
