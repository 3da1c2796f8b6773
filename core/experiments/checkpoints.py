"""States of trainings that a stopped one goes on from: weights, optimisers, random generators."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import torch

from core import files


def save(path: Path, state: dict) -> None:
    """Write a state for `torch.load(path, weights_only=True)`, atomically. Raises OSError."""

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as e:
            if isinstance(e.__context__, OSError):  # torch hides why a write failed
                raise e.__context__ from None
            raise

    files.write_atomic(path, write)


def load(path: Path, device: str | torch.device = "cpu") -> dict:
    """The state that `save` wrote. Raises DamagedError, which names the file."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as e:  # torch raises errors of several kinds for damaged files
        fix = "remove it, and the same command trains this run's G from its first step"
        raise files.DamagedError(
            f"{files.shown(path)} is damaged ({type(e).__name__}); {fix}"
        ) from e
