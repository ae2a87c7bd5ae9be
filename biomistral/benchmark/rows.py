"""Rows of CSV and Parquet files as objects by column. Knows no format above these two."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from biomistral.benchmark.parsing import JsonObject, Place, Spot, decoded
from biomistral.errors import InputError


def csv_rows(data: bytes, place: Place) -> Iterator[tuple[Spot, JsonObject]]:
    """Yield the rows of a CSV file whose first line names the columns; records count from 1."""
    reader = csv.DictReader(io.StringIO(decoded(data, place), newline=""), strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            spot = Spot(place, number)
            if None in row or None in row.values():
                due = len(reader.fieldnames or ())
                raise spot.wrong(f"has more or fewer columns than the first line, which has {due}")
            yield spot, row
    except csv.Error as error:
        where = f"{place.file}, line {reader.line_num}"
        raise InputError(f"{where}: is no valid CSV ({error})") from None


def parquet_rows(data: bytes, place: Place) -> Iterator[tuple[Spot, JsonObject]]:
    """Yield the rows of a Parquet file; records count from 1."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{place.file}: cannot be read as Parquet ({reason})") from None
    rows = (row for batch in table.to_batches() for row in batch.to_pylist())
    for number, row in enumerate(rows, start=1):
        yield Spot(place, number), row
