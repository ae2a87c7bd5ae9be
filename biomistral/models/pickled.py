"""Pickled weights (``pytorch_model.bin``): where their tensors lie, without reading a value.

A file of ``torch.save`` is an uncompressed zip archive: a pickle that describes the tensors, and
their values as they are in memory. Only the pickle is read, by ``torch.load`` with
``weights_only``, which builds tensors and plain containers and refuses everything else; so no code
of the file runs. The values are then read like those of a safetensors file. Knows nothing about
folders; whoever calls it has asked the user first.

Format: https://docs.pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

from biomistral.errors import ModelError
from biomistral.models.safetensors_files import STORABLE, StoredTensor, TensorSpec

# The pickle only: that of a 7B model has some 100 kB.
_LONGEST_PICKLE_BYTES = 100_000_000
_LOCAL_HEADER_BYTES = 30  # before name and extra field, in the zip format
_DAMAGE = (
    *(zipfile.BadZipFile, pickle.UnpicklingError, AssertionError, AttributeError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError, EOFError, NotImplementedError, MemoryError),
)
_CONVERT = (
    "convert a checkpoint that you trust with Transformers: "
    "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
)


def read_pickled(file: Path) -> list[StoredTensor]:
    """Return the tensors of one file that ``torch.save`` wrote, in the order they were saved.

    Several may share their values, as tied weights do. Raises ``ModelError`` if the file holds
    anything but tensors by name, if it is damaged, or if its values do not lie there as plain
    little-endian rows.
    """
    if not zipfile.is_zipfile(file):
        raise ModelError(
            f"{file}: is no archive of torch.save: it is cut off, or of the format before PyTorch "
            f"1.6; fetch the file again, or {_CONVERT}"
        )
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
            records = _records(archive)
            names, stub = _without_values(archive, records)
            places = {key: _start_of(stream, record) for key, record in records.items()}
        tensors = _described(stub)
    except _DAMAGE as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ModelError(
            f"{file}: cannot be read as plain weights ({reason}); fetch the file again, or "
            f"{_CONVERT}"
        ) from None
    stored = []
    for name, tensor in tensors.items():
        spec, key, skipped_bytes = _checked(file, name, tensor, names)
        if skipped_bytes + spec.num_bytes > records[key].file_size:
            raise ModelError(
                f"{file}: is damaged: {name} needs more bytes than the {records[key].file_size} "
                "stored for it; fetch the file again"
            )
        start = places[key] + skipped_bytes
        stored.append(StoredTensor(spec.name, spec.shape, spec.dtype, file, start))
    return stored


def _records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the records of the archive, by their names below its one folder."""
    records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if len(records) < len(archive.infolist()):
        raise ValueError("two of its records have one name")
    for record in records.values():
        if record.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{record.filename} is compressed")
    if records["data.pkl"].file_size > _LONGEST_PICKLE_BYTES:
        raise ValueError("its pickle is too long to be a list of tensors")
    if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
        raise ValueError("its values are big-endian")
    return records


def _without_values(
    archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo]
) -> tuple[dict[int, str], io.BytesIO]:
    """Copy an archive with empty records for its values; say which record begins at which byte.

    ``torch.load`` tells of a tensor on the device ``meta`` at which byte of the archive its values
    begin. Of the file itself it computes that from the order of the records, which a file written
    by others need not keep; of the copy, the bytes are names.
    """
    starts: dict[int, str] = {}
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as stub:
        for name in ("data.pkl", "version", "byteorder", "constants.pkl"):
            if name in records:
                stub.writestr(f"stub/{name}", archive.read(records[name]))
        for name in records:
            if name.startswith("data/"):
                stub.writestr(f"stub/{name}", b"")
                begin = stub.getinfo(f"stub/{name}").header_offset
                starts[begin + _LOCAL_HEADER_BYTES + len(f"stub/{name}".encode())] = name
    copy.seek(0)
    return starts, copy


def _start_of(stream: io.BufferedReader, record: zipfile.ZipInfo) -> int:
    """Return the byte of the file at which the contents of a record begin."""
    stream.seek(record.header_offset)
    header = stream.read(_LOCAL_HEADER_BYTES)
    name_bytes = int.from_bytes(header[26:28], "little")
    extra_bytes = int.from_bytes(header[28:30], "little")
    return record.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes


def _described(stub: io.BytesIO) -> dict[str, Any]:
    """Unpickle tensors without values, by name."""
    import torch

    tensors = torch.load(stub, map_location="meta", weights_only=True)
    if not isinstance(tensors, dict):
        raise TypeError(f"it holds a {type(tensors).__name__} instead of tensors by name")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name!r} is a {type(tensor).__name__} instead of a tensor")
    return tensors


def _checked(
    file: Path, name: str, tensor: Any, names: dict[int, str]
) -> tuple[TensorSpec, str, int]:
    """Return what a tensor is, the record of its values and how many bytes of that come before."""
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")
    is_plain = dtype in STORABLE and tensor.layout == torch.strided and not tensor.is_neg()
    if not is_plain or not tensor.is_contiguous():
        raise ModelError(
            f"{file}: {name} ({dtype}, shape {list(tensor.shape)}) is not stored as plain rows "
            f"of numbers; {_CONVERT}"
        )
    key = names.get(getattr(tensor.untyped_storage(), "_checkpoint_offset", None) or -1)
    if key is None:
        raise ModelError(f"{file}: {name} has no values in the file; {_CONVERT}")
    spec = TensorSpec(name, tuple(tensor.shape), dtype)
    return spec, key, tensor.storage_offset() * spec.element_bytes
