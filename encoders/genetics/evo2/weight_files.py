"""Files with the weights of an Evo 2: what tensors they hold, and those tensors, a group at a time.

Three forms: `NAME.pt`; `NAME.pt.part0`, `.part1`, ... which are one `.pt` cut into pieces; and safetensors, one
file or several with `model.safetensors.index.json`, as `scripts/convert_evo2.py` writes them.
"""

import io
import json
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from encoders.runs.errors import InputError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
BROKEN = (OSError, RuntimeError, pickle.UnpicklingError, EOFError, SafetensorError, ValueError, KeyError)


class WeightFile(ABC):
    """Tensors by name, read when asked for.

    Attributes:
        path: What messages call it.
        files: All files it is made of.
    """

    path: Path
    files: list[Path]

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor; () stands for entries that are no tensors, or sparse ones."""

    @abstractmethod
    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """The tensors named."""


class PtFile(WeightFile):
    """A `.pt` on disk, mapped into memory: a tensor costs memory when it is touched, until it is let go."""

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, [path]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: _shape(value) for name, value in self._open().items()}

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        content = self._open()  # anew for each group: the pages of the last one go with its mapping
        for name in names:
            yield name, content.pop(name)

    def _open(self) -> dict[str, Any]:
        try:
            with torch.serialization.safe_globals([io.BytesIO]):
                content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except BROKEN as cause:
            raise _unreadable(self.path, cause) from cause
        return _dictionary(content, self.path)


class PtParts(WeightFile):
    """A `.pt` cut into pieces, read through as one file: no merged copy, and tensor by tensor."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = sorted(paths, key=_part)
        self.path = self.files[0]
        numbers = [_part(path) for path in self.files]
        if numbers != list(range(len(numbers))):
            absent = sorted(set(range(max(numbers))) - set(numbers))
            raise InputError(
                f"{self.path.parent} has parts {', '.join(map(str, numbers))} of {self.path.stem}, but not part "
                f"{', '.join(map(str, absent))}; download all parts"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: _shape(value) for name, value in self._outline().items()}

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        outline = self._outline()
        with _Parts(self.files) as file:
            for name in names:
                fake = outline[name]
                storage = fake.untyped_storage()
                if storage._checkpoint_offset is None:  # no zip archive: not said where its bytes lie
                    raise InputError(
                        f"{self.path} and its other parts are in the format of PyTorch before 1.6; join them (cat), open "
                        f"the file with torch.load and write it again with torch.save"
                    )
                whole = torch.empty(storage.nbytes(), dtype=torch.uint8)
                file.seek(storage._checkpoint_offset)
                if file.readinto(memoryview(whole.numpy())) != len(whole):
                    raise InputError(f"{self.path} and its other parts end too early; download them again")
                data = whole.view(fake.dtype)
                yield name, data.as_strided(fake.shape, fake.stride(), fake.storage_offset())

    def _outline(self) -> dict[str, Any]:
        """Names, shapes and places of all tensors; no data is read."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        try:
            with (
                _Parts(self.files) as file,
                torch.serialization.safe_globals([io.BytesIO]),
                FakeTensorMode(),
            ):
                content = torch.load(file, map_location="cpu", weights_only=True)
        except BROKEN as cause:
            raise _unreadable(self.path, cause) from cause
        return _dictionary(content, self.path)


class SafetensorsFile(WeightFile):
    """Our own form: Wqkv keeps the authors' order of rows, so both forms hold the same tensors."""

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        self._sha256: dict[str, str] = {}
        if not index.is_file():
            self.path, self.files = folder / SINGLE, [folder / SINGLE]
            return
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            names, self._sha256 = set(content["weight_map"].values()), content["metadata"].get("sha256", {})
        except (OSError, ValueError, KeyError, AttributeError) as cause:
            raise InputError(f"{index} is not a readable index ({cause}); convert the model again") from cause
        if odd := sorted(name for name in names if Path(name).name != name):
            raise InputError(
                f"{index} names {odd[0]}, which does not lie in its folder; it is not from our converter"
            )
        self.path, self.files = index, sorted(folder / name for name in names)
        if missing := [path.name for path in self.files if not path.is_file()]:
            raise InputError(f"{folder} lacks {', '.join(missing)}, which {index.name} names; copy all files")

    def check(self, found: dict[str, str]) -> None:
        """Compare the sha256 of each file with what the converter wrote down.

        Args:
            found: Name of a file -> its sha256.

        Raises:
            InputError: E_HASH.
        """
        for name, wanted in self._sha256.items():
            if found.get(name) != wanted:
                raise InputError(
                    f"{self.path.parent / name} is damaged: its content does not match the sha256 in {INDEX}; copy or "
                    f"convert it again",
                    code="E_HASH",
                )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found = {}
        for path in self.files:
            with self._open(path) as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return found

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for path in self.files:
            with self._open(path) as file:
                for name in set(names) & set(file.keys()):
                    yield name, file.get_tensor(name)

    def _open(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except BROKEN as cause:
            raise _unreadable(path, cause) from cause


class _Parts(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._files = [open(path, "rb") for path in paths]  # noqa: SIM115 (closed in close)
        sizes = [path.stat().st_size for path in paths]
        self._starts = [sum(sizes[:at]) for at in range(len(sizes))]
        self._size, self._at = sum(sizes), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and self._at < self._size:
            part = max(at for at, start in enumerate(self._starts) if start <= self._at)
            self._files[part].seek(self._at - self._starts[part])
            count = self._files[part].readinto(view[done:])
            if not count:
                break
            done, self._at = done + count, self._at + count
        return done

    def close(self) -> None:
        for file in getattr(self, "_files", []):
            file.close()
        super().close()


def open_weights(folder: Path) -> WeightFile:
    """The weights in a folder: safetensors before `.pt` before parts.

    Raises:
        InputError: none, or several models.
    """
    folder = Path(folder)
    if (folder / INDEX).is_file() or (folder / SINGLE).is_file():
        return SafetensorsFile(folder)
    whole = sorted(folder.glob("*.pt"))
    parts = [path for path in folder.glob("*.pt.part*") if _part(path) >= 0]
    models = {path.name for path in whole} or {path.name.rpartition(".part")[0] for path in parts}
    if len(models) != 1:
        raise InputError(
            f"{folder} holds {'no' if not models else 'several'} Evo 2 weights"
            f"{': ' + ', '.join(sorted(models)) if models else ''}; one NAME.pt, its NAME.pt.part0, part1, ... or a "
            f"converted model was wanted"
        )
    return PtFile(whole[0]) if whole else PtParts(parts)


def _part(path: Path) -> int:
    found = re.search(r"\.part(\d+)$", path.name)
    return int(found[1]) if found else -1


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) and value.layout == torch.strided else ()


def _dictionary(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path} holds a {type(content).__name__}; a dictionary of tensors was wanted")
    return content


def _unreadable(path: Path, cause: Exception) -> InputError:
    text = str(cause).partition("WeightsUnpickler error:")[2] or str(
        cause
    )  # not its advice to unpickle anything
    reason = text.strip().splitlines()[0] if text.strip() else type(cause).__name__
    return InputError(
        f"{path} is not a readable checkpoint of tensors ({reason[:300]}); download it again. Files that need code "
        f"to be unpickled are refused"
    )
