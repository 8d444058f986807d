"""The objects of a deployment, as plain documents. Pure: equal input gives equal output."""

from serve.targets.kubernetes.objects.render import Object, render

__all__ = ["Object", "render"]
