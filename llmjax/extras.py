"""What brings a package that is missing: a wheel alone reads HLO text and counts."""

_EXTRAS = {
    "plotly": "report", "absl": "jax", "jax": "jax", "jaxlib": "jax", "ml_collections": "jax", "ml_dtypes": "jax",
    "numpy": "jax", "scipy": "jax", "torch": "hf", "torchax": "hf",
}  # fmt: skip


def told(error: ModuleNotFoundError) -> str:
    """Returns which extra of llmjax brings what was imported in vain."""
    name = (error.name or "").partition(".")[0]
    return f"this needs {name}: pip install 'llmjax[{_EXTRAS.get(name, 'models')}]'"
