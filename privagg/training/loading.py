"""Where a party's records come from: a file or a factory, read as the public declaration says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from privagg.errors import ConfigError
from privagg.training.data import DatasetRecords, Records, TensorRecords
from privagg.training.declared import ImageSource, Source, TableSource
from privagg.training.factories import ApprovedCode, look_at
from privagg.training.images import load_images
from privagg.training.reading import declared_parts
from privagg.training.spooled import SpooledRecords


def load_records(
    source: Source,
    base: Path,
    data: str,
    labels: str | None = None,
    *,
    public: bool = False,
    code: ApprovedCode | None = None,
) -> Records:
    """Reads one party's records.

    Args:
        source: how its files are read; public.
        base: folder that relative paths start from.
        data: path of the table or of the images; for a data set `package.module:factory`.
        labels: path of the images' labels.
        public: True only where the owner declares the records public.
        code: what may be imported for a factory; None only where the caller wrote `data` itself.

    Raises:
        ApprovalError: the factory is not among `code`; nothing was imported.
        ConfigError: a path or factory does not exist.
        DataError: what is there cannot be read, or does not fit the declaration.
    """
    if isinstance(source, TableSource):
        parts = map(source.schema.encode, declared_parts(source, base / data))
        first, second = next(parts), next(parts, None)
        if second is None:
            return TensorRecords.of(*first, public=public)
        return SpooledRecords(itertools.chain((first, second), parts), public=public)
    if isinstance(source, ImageSource):
        if labels is None:
            raise ConfigError(f"images {data} need `labels`, the path of their labels' .npy file")
        return load_images(
            base / data,
            base / labels,
            value_range=source.value_range,
            shape=source.shape,
            classes=source.classes,
            first_label=source.first_label,
            public=public,
        )
    return DatasetRecords(
        _make_dataset(data, code),
        input_shape=source.shape,
        classes=source.classes,
        first_label=source.first_label,
        public=public,
    )


def _make_dataset(factory: str, code: ApprovedCode | None) -> Any:
    allowed = ApprovedCode.of(look_at(factory)) if code is None else code
    try:
        return allowed.load(factory)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"data set {factory!r} cannot be made ({error}); it must read "
            "'package.module:factory', a function without arguments that is importable from "
            "where privagg runs"
        ) from error
