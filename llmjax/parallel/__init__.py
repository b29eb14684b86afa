"""Many devices: a mesh, where each array of a model lies on it, and how a program's own values are spread over it."""

from llmjax.parallel.mesh import AXES, ROWS, MeshConfig, current, mesh_sizes, on_mesh

__all__ = ["AXES", "ROWS", "MeshConfig", "current", "mesh_sizes", "on_mesh"]
