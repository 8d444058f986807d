"""Container engines: finding the one that is meant, speaking to it, giving it images."""

from serve.engines.engine import Engine
from serve.engines.finding import find_engine
from serve.engines.places import Kind

__all__ = ["Engine", "Kind", "find_engine"]
