"""What runs beside a model: formats, runtimes, schemas, the entry-script contract.

This package imports neither `serve` nor `edge`.
"""

__version__ = "0.1.0"
