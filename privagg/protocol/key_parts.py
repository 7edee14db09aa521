"""Key parts: what opening multiplies with the secret, held against what contributors signed.

A ring-LWE ciphertext (c0, c1) opens to c0 + c1 s. Whoever chooses c1 chooses what is multiplied
with the secret s, and reads s from what is opened: with c1 = D x^0 the coefficients of D s stand in
the sum. So every site signs the digest of its own c1, the aggregator passes the c1 of every upload
on, and the key holder adds them again and opens no sum with another c1. What an aggregator can
still do is add numbers of its own to c0, which shifts the opened sum by numbers that it knows.
The attack is that of Chenal and Tang, "On key recovery attacks against existing somewhat
homomorphic encryption schemes", Latincrypt 2014; a key holder is the decryption oracle it needs.

Only a contributor chooses c1 now, its own; SECURITY.md says what that comes to.

What a masking scheme attaches to an upload travels the same way: behind the tensor, its digest
signed in the same field, and with the request to whoever opens.
"""

from __future__ import annotations

from collections.abc import Sequence

from privagg.digest import tree_digest
from privagg.errors import CiphertextError, OpeningRefusedError
from privagg.protocol.messages import Upload
from privagg.secure.scheme import Buffer, Fold, Parameters


def split_attachments(parameters: Parameters, payload: Buffer) -> tuple[memoryview, memoryview]:
    """The payload of an upload's frame, as its tensor and what is attached behind it.

    Raises:
        CiphertextError: it is shorter than the attachments.
    """
    view, size = memoryview(payload).cast("B"), parameters.attachment_bytes
    if view.nbytes < size:
        raise CiphertextError(f"{view.nbytes} bytes do not hold the {size} of the attachments")
    return view[: view.nbytes - size], view[view.nbytes - size :]


def signed_key_part(
    parameters: Parameters, upload: Upload, payload: Buffer, attachments: Buffer
) -> bytes:
    """The key part of an upload and its attachments, once they are those that its sender signed.

    Args:
        parameters: of the round's scheme.
        upload: the verified header.
        payload: `payload_bytes` bytes.
        attachments: `attachment_bytes` bytes.

    Raises:
        CiphertextError: the sender signed the digest of another.
    """
    part = b"".join((parameters.key_part(payload), attachments))
    if tree_digest(part) != upload.key_part_digest:
        raise CiphertextError(
            f"upload of {upload.sender!r}: it signed another key part than the one inside"
        )
    return part


def split_key_parts(
    parameters: Parameters, count: int, payload: memoryview
) -> tuple[memoryview, list[memoryview]]:
    """A payload that ends with `count` key parts, as what stands before them and the parts.

    A part is what `signed_key_part` gives.

    Args:
        parameters: of the round's scheme; give the size of a part.
        count: contributions in the sum that it carries.
        payload: read in place.

    Raises:
        CiphertextError: it is shorter than the parts.
    """
    size = parameters.key_part_bytes + parameters.attachment_bytes
    first = payload.nbytes - count * size
    if first < 0:
        raise CiphertextError(f"{payload.nbytes} bytes do not hold {count} key parts of {size}")
    return payload[:first], [payload[first + i * size :][:size] for i in range(count)]


def require_key_parts(
    parameters: Parameters,
    uploads: Sequence[Upload],
    parts: Sequence[memoryview],
    total: Buffer,
    carrier: str,
) -> None:
    """Require that a sum's key part is the sum of those that its contributors signed.

    Memory is that of one key part, whatever the number of uploads.

    Args:
        parameters: of the round's scheme.
        uploads: verified headers of the uploads in the sum.
        parts: their key parts, in the same order.
        total: the sum's payload.
        carrier: who added and passed all of it on; what is wrong here is that party's doing.

    Raises:
        OpeningRefusedError: a part is another than the one signed, or they add up to another.
    """
    for upload, part in zip(uploads, parts, strict=True):
        if tree_digest(part) != upload.key_part_digest:
            raise OpeningRefusedError(
                f"{carrier!r} passed on a key part that {upload.sender!r} did not sign"
            )
    fold: Fold | None = parameters.key_part_fold()
    if fold is None:
        return
    for upload, error in zip(uploads, fold.add_many(parts), strict=True):
        if error is not None:
            raise OpeningRefusedError(f"the key part of {upload.sender!r}: {error}")
    if fold.payload() != parameters.key_part(total):
        raise OpeningRefusedError(
            f"{carrier!r} altered the sum: the part that is multiplied with the secret key is not "
            "the sum of what the contributors signed. Such a sum gives the key away; it was not "
            "opened, and nothing was decrypted"
        )
