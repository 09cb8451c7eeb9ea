"""What is stored by rows, seen by satellites and epochs, and read as far as it is asked for."""

from typing import Any

import numpy as np


def by_satellite(dataset: Any, row: np.ndarray) -> Any:
    """An xarray.Dataset with satellites and epochs in place of rows, lazy; `row` is (satellites, epochs)."""
    from xarray import Variable
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Array(BackendArray):
        """An array of rows as one of satellites and epochs."""

        def __init__(self, stored: Any):
            self.stored = stored
            self.shape, self.dtype = (*row.shape, *stored.shape[1:]), stored.dtype

        def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
            outer = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, outer, self.read)

        def read(self, key: tuple[Any, ...]) -> np.ndarray:
            return _read(self.stored, row, key)

    found = {
        name: Variable(
            ("satellite", "epoch", *array.dims[1:]),
            indexing.LazilyIndexedArray(Array(array)),
            array.attrs,
            array.encoding,
        )
        for name, array in dataset.data_vars.items()
        if array.dims[:1] == ("revolution",)
    }
    return dataset.drop_vars(list(found)).assign(found)


def _read(stored: Any, row: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
    """Some satellites, epochs and whatever else by their own indices. Each row is read once, whoever shares it."""
    satellite, epoch, *rest = key
    rows = row[satellite][..., epoch]
    wanted, place = np.unique(rows, return_inverse=True)
    run = len(wanted) > 0 and wanted[-1] - wanted[0] == len(wanted) - 1
    # A run of rows is read chunk by chunk, others are gathered.
    where = slice(wanted[0], wanted[-1] + 1) if run else wanted
    among = dict(zip(stored.dims[1:], rest))
    return stored.isel(revolution=where, **among).values[place.reshape(rows.shape)]
