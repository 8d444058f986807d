"""`python -m tests.support.kubernetes_double.run KUBECONFIG`: a double until its stdin ends."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.kubernetes_double.server import KubernetesDouble

if __name__ == "__main__":
    with KubernetesDouble() as double:
        print(double.kubeconfig(Path(sys.argv[1])), flush=True)
        sys.stdin.read()
