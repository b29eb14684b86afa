"""The structure of a pytree as JSON: dicts, tuples, lists and named kinds; nothing is imported to read it."""

from typing import Any

_LEAF = "*"


def described(structure: Any, kinds: tuple[type, ...] = ()) -> Any:
    """Returns JSON for a structure: "*" for a leaf, else [kind, keys of a dict or null, parts].

    Args:
        structure: what `jax.tree.structure` gives.
        kinds: the named tuples and registered dataclasses that may stand in it, told apart by name.

    Raises:
        ValueError: something else stands in it, or a dict whose keys are no strings.
    """
    node: Any = structure.node_data()
    if node is None:
        return _LEAF
    kind, extra = node
    keys = list(extra) if kind is dict else None
    if kind not in (dict, tuple, list, type(None), *kinds) or not all(isinstance(key, str) for key in keys or ()):
        raise ValueError(f"{kind.__name__} cannot be described")
    return [kind.__name__, keys, [described(part, kinds) for part in structure.children()]]


def rebuilt(description: Any, kinds: tuple[type, ...] = ()) -> Any:
    """Returns a tree of the structure that `described` gave, its leaves 0; other JSON is a ValueError."""
    if description == _LEAF:
        return 0
    name, keys, parts = description
    children = [rebuilt(part, kinds) for part in parts]
    if name == "dict":
        return dict(zip(keys, children, strict=True))
    if name in ("tuple", "list"):
        return tuple(children) if name == "tuple" else children
    if name == "NoneType":
        return None
    named = {kind.__name__: kind for kind in kinds}
    if name not in named:
        raise ValueError(f"{name!r} is no kind of {', '.join(named)}")
    return named[name](*children)
