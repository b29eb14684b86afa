"""What people bring: files and folders of HLO, protos, StableHLO, traces, their own functions -> programs to analyse.

Nothing here imports JAX before something is read that needs it.
"""
