"""A JAX function -> the compiled HLO of a chip."""
