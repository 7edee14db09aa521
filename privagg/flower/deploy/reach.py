"""Why a party does not reach its SuperLink: tried out from here, not guessed from Flower's logs."""

from __future__ import annotations

import http.client
import socket
import ssl
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from privagg.flower.deploy.folder import FlowerFolder
from privagg.party.cards import split_address
from privagg.protocol.names import COORDINATOR

SECONDS = 5.0
MOST_AHEAD_SECONDS, MOST_BEHIND_SECONDS = 5, 305
"""A node whose clock differs by more is refused (`superlink.routers.fleet.node_auth`)."""
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64
"""X509_V_ERR_* of OpenSSL's `x509_vfy.h`."""


def trouble(folder: FlowerFolder) -> str:
    """Why the SuperLink does not answer this party under its certificate; empty where it does.

    Args:
        folder: the party's. The coordinator asks where its SuperLink listens, the others where
            its card says.
    """
    settings = folder.settings()
    coordinates = folder.party.party().name == COORDINATOR
    address = settings.local if coordinates else settings.superlink
    host, port = split_address(address)
    try:
        context = ssl.create_default_context(cafile=str(folder.authority))
        asking = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
        with closing(asking):
            asking.request("GET", "/")
            return "" if coordinates else _clocks(asking.getresponse().getheader("Date"))
    except ssl.SSLCertVerificationError as error:
        return _certificate(error.verify_code, host, address)
    except (ssl.SSLError, http.client.HTTPException):
        return (
            f"what answers at {address} is no SuperLink: another program listens there, or a proxy "
            "stands before it"
        )
    except socket.gaierror:
        return f"no machine is known here under the name {host!r}; check its spelling and DNS"
    except ConnectionRefusedError:
        return f"no SuperLink answers at {address}; " + (
            f"start it: privagg deploy start {folder.party.root}"
            if coordinates
            else "its coordinator starts it (privagg deploy start) and opens the port to nodes"
        )
    except TimeoutError:
        return (
            f"nothing answers at {address} within {SECONDS:.0f} seconds; is the machine on, and "
            f"does every firewall on the way let port {port} pass?"
        )
    except OSError as error:
        return f"{address} cannot be reached: {error.strerror or error}"


def _certificate(code: int, host: str, address: str) -> str:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if code == _EXPIRED:
        return (
            "the SuperLink's certificate has expired; the coordinator renews it with `privagg "
            f"deploy renew` and starts again (or this machine's clock is wrong: it says {now})"
        )
    if code == _NOT_YET:
        return (
            "the SuperLink's certificate is not valid yet; this machine's clock is probably wrong: "
            f"it says {now}"
        )
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return (
            f"the SuperLink's certificate is not for {host!r}; the coordinator makes one that is "
            f"with `privagg deploy party coordinator CONFIG --superlink {address}` and starts again"
        )
    return (
        f"the SuperLink at {address} is not of the authority on the coordinator's card; where the "
        "coordinator made a new one, join again with its new card, else another machine answers"
    )


def _clocks(said: str | None) -> str:
    """Flower refuses nodes whose clock is ahead of the SuperLink's; it says so to nobody."""
    try:
        there = parsedate_to_datetime(said or "")
    except ValueError:
        return ""
    ahead = round((datetime.now(UTC) - there).total_seconds()) - 1  # it names whole seconds
    if -MOST_BEHIND_SECONDS < ahead < MOST_AHEAD_SECONDS:
        return ""
    return (
        f"this machine's clock is {abs(ahead)} seconds {'ahead of' if ahead > 0 else 'behind'} the "
        f"SuperLink's, which refuses such nodes (more than {MOST_AHEAD_SECONDS} seconds ahead or "
        f"{MOST_BEHIND_SECONDS} behind); have both set their clocks by NTP"
    )
