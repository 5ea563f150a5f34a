"""What a model may be given as."""

from __future__ import annotations

import json
import operator
import os
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ._error import Error


@runtime_checkable
class Serializable(Protocol):
    """An ``onnx.ModelProto``."""

    def SerializeToString(self) -> bytes: ...


class Program(Protocol):
    """A ``torch.onnx.ONNXProgram``."""

    @property
    def model_proto(self) -> Any: ...


@runtime_checkable
class Readable(Protocol):
    """A file that was opened for reading bytes."""

    def read(self) -> bytes: ...


ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Serializable | Program | Readable"


def opened(model: ModelSource) -> tuple[str | os.PathLike[str], bytes | None]:
    """Returns the path of a model and, where the caller has them, its bytes."""
    if isinstance(model, (bytes, bytearray, memoryview)):
        return "model.onnx", bytes(model)
    if isinstance(model, (str, os.PathLike)):
        return model, None
    # Asked of the class: of the program itself it would be made twice.
    proto = model.model_proto if hasattr(type(model), "model_proto") else model  # type: ignore[union-attr]
    if isinstance(proto, Serializable):
        return "model.onnx", proto.SerializeToString()
    if isinstance(model, Readable):
        data, name = model.read(), getattr(model, "name", None)
        if isinstance(data, bytes):
            return name if isinstance(name, str) else "model.onnx", data
        raise Error(f"the file gives {type(data).__name__}, expected bytes", 'open(path, "rb")')
    raise Error(
        f"model is of type {type(model).__name__}, expected a path, bytes, a file, an onnx.ModelProto or "
        "what torch.onnx.export returns"
    )


def whole(name: str, value: Any) -> int:
    """Returns a whole number, also one of NumPy."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise Error(f"{name} is {value!r}, expected a whole number")
    return number


def request(**fields: Any) -> str:
    """Returns a request to the native part; what is ``None`` is left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return json.dumps(given, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Error(f"an option cannot be used: {error}") from None


def _plain(value: Any) -> Any:
    """Returns the Python number that a scalar of NumPy or PyTorch is."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{value!r} is of type {type(value).__name__}")
    return item()
