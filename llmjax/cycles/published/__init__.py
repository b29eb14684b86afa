"""Published times of whole programs and kernels: rows of a table, what each is of, and how far off a prediction is."""
