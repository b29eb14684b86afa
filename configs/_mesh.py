"""The settings of jobs that run, or compile, a model on several devices."""

from ml_collections import ConfigDict


def mesh(data: int = -1) -> ConfigDict:
    """Returns over how many devices each axis of the mesh divides the work: docs/parallel.md says how to choose."""
    c = ConfigDict()
    c.data = data  # rows of a batch, each device with the whole model; -1 = as many devices as the others leave
    c.fsdp = 1  # rows and parameters: a layer's are gathered when it runs
    c.tensor = 1  # heads and inner values of every layer: it must divide both
    return c


def mesh_here() -> ConfigDict:
    """Returns the mesh of a job that computes, and which process of how many this one is."""
    c = mesh()
    c.coordinator = ""  # HOST:PORT of process 0; "" = alone, or as Slurm, Open MPI or the TPU VM tells
    c.processes = 0  # how many there are; to be given with the coordinator
    c.process = -1  # which of them this is, from 0
    return c
