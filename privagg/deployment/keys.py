"""The encryption key: made by the party that opens, on its own machine; its public half travels."""

from __future__ import annotations

from privagg.deployment.layout import PartyFolder, write_new, write_whole
from privagg.errors import DeploymentError, SchemeError
from privagg.secure.scheme import Parameters, Scheme


def make_key(folder: PartyFolder, scheme: Scheme, parameters: Parameters) -> str:
    """The opener's key, made where there is none yet; one that is there is kept.

    Args:
        folder: the opener's.
        scheme: of the federation.
        parameters: of the federation's plan.

    Returns:
        The key id that the opener's card carries.
    """
    if not folder.decryption_key.exists():
        made = scheme.generate_key(parameters)
        write_new(folder.decryption_key, made.to_bytes(), secret=True)
        write_whole(folder.encryption_key, made.encryption_key.to_bytes())
    return read_key_id(folder, scheme, parameters)


def take_key(
    folder: PartyFolder, scheme: Scheme, parameters: Parameters, data: bytes, key_id: str
) -> None:
    """Keep the federation's encryption key, if it is the one on the opener's card.

    Raises:
        DeploymentError: it is another one, or none.
    """
    try:
        found = scheme.load_encryption_key(parameters, data).key_id
    except SchemeError as error:
        raise DeploymentError(f"that is no encryption key of this federation: {error}") from error
    if found != key_id:
        raise DeploymentError(
            f"that encryption key is {found[:16]}…, the opener's card names {key_id[:16]}…; ask "
            "the opener for its encryption.key"
        )
    write_whole(folder.encryption_key, data)


def read_key_id(folder: PartyFolder, scheme: Scheme, parameters: Parameters) -> str:
    """The id of the encryption key in a folder.

    Raises:
        DeploymentError: there is none, or it is of other parameters.
    """
    try:
        data = folder.encryption_key.read_bytes()
        return scheme.load_encryption_key(parameters, data).key_id
    except OSError as error:
        raise DeploymentError(
            f"{folder.encryption_key} is missing; it comes from the party that opens"
        ) from error
    except SchemeError as error:
        raise DeploymentError(f"{folder.encryption_key} cannot be used: {error}") from error
