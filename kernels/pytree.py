"""Immutable records of arrays that JAX's transformations take as they take an array."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform, no_type_check

import jax

T = TypeVar("T")


def static(**options):
    """A field that is compiled for instead of traced: a Python value that hashes. Options of `dataclasses.field`."""
    return field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(field, static))
def pytree(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass that is a JAX pytree of its fields.

    Its fields are not shape-checked at run time: scan and vmap rebuild a pytree of other ranks, or of placeholders.
    """
    return no_type_check(jax.tree_util.register_dataclass(dataclass(frozen=True)(cls)))
