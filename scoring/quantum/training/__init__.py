"""Learning a circuit's angles: the Q# library's own loop, Adam, and L-BFGS.

`options` says how, `problem` holds what is learned from, `library`, `adam` and `lbfgs` advance one
start point by an epoch, `bias` fits the bias, `run` leads all start points to their ends.
"""

from __future__ import annotations
