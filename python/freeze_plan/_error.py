"""What every call of this package raises."""

from __future__ import annotations

__all__ = ["Error"]


class Error(ValueError):
    """A model, an option, a plan file or a run that cannot be used.

    ``str(error)`` says where, what was expected and what was found, and ends with the hint where there is one.
    """

    message: str
    """What went wrong, in one line."""
    hint: str | None
    """What to do, where that is known."""
    kind: str
    """``"bad-input"``, ``"usage"``, ``"unsupported"``, ``"check"``, or ``"internal"`` for a defect of this package."""

    def __init__(self, message: str, hint: str | None = None, kind: str = "usage") -> None:
        super().__init__(message, hint, kind)
        self.message, self.hint, self.kind = message, hint, kind

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message
