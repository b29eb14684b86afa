"""One op of a compiled program down to its machine code: files of a dump, x86 loops, cycles. No JAX import."""
