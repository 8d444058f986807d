"""Runtimes: each loads one kind of model file and answers arrays with arrays."""
