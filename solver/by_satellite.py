"""What is stored by rows, seen by satellites and epochs, and read as far as it is asked for."""

from typing import Any

import numpy as np
from xarray import DataArray, Dataset, Variable
from xarray.backends import BackendArray
from xarray.core import indexing


def by_satellite(dataset: Dataset, row: np.ndarray) -> Dataset:
    """The dataset with satellites and epochs in place of rows, lazy; `row` is (satellites, epochs)."""
    found = {
        name: Variable(
            ("satellite", "epoch", *array.dims[1:]),
            indexing.LazilyIndexedArray(_Array(array, row)),
            array.attrs,
            array.encoding,
        )
        for name, array in dataset.data_vars.items()
        if array.dims[:1] == ("revolution",)
    }
    return dataset.drop_vars(list(found)).assign(found)


class _Array(BackendArray):
    """An array of rows as one of satellites and epochs. Each row that is wanted is read once, whoever shares it."""

    def __init__(self, stored: DataArray, row: np.ndarray):
        self.stored, self.row = stored, row
        self.shape, self.dtype = (*row.shape, *stored.shape[1:]), stored.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        satellite, epoch, *rest = key
        rows = self.row[satellite][..., epoch]
        wanted, place = np.unique(rows, return_inverse=True)
        among = dict(zip(self.stored.dims[1:], rest))
        run = len(wanted) > 0 and wanted[-1] - wanted[0] == len(wanted) - 1
        # A run of rows is read chunk by chunk, others are gathered.
        where = slice(wanted[0], wanted[-1] + 1) if run else wanted
        return self.stored.isel(revolution=where, **among).values[place.reshape(rows.shape)]
