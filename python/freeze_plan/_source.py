"""What a model may be given as."""

from __future__ import annotations

import json
import os
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ._error import Error


@runtime_checkable
class Serializable(Protocol):
    """An ``onnx.ModelProto``."""

    def SerializeToString(self) -> bytes: ...


ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Serializable"


def opened(model: ModelSource) -> tuple[str | os.PathLike[str], bytes | None]:
    """Returns the path of a model and, where the caller has them, its bytes."""
    if isinstance(model, (bytes, bytearray, memoryview)):
        return "model.onnx", bytes(model)
    if isinstance(model, (str, os.PathLike)):
        return model, None
    if isinstance(model, Serializable):
        return "model.onnx", model.SerializeToString()
    raise Error(f"model is of type {type(model).__name__}, expected a path, bytes or an onnx.ModelProto")


def request(**fields: Any) -> str:
    """Returns a request to the native part; what is ``None`` is left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Error(f"an option cannot be used: {error}") from None
