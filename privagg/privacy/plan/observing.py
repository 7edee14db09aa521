"""Who sees what in a round whose noise is shared out, and what must be true for the row to hold.

The rows follow `integer-noise`: an observer who knows k colluding sites subtracts their shares, so
m - k shares of the m opened ones remain; whoever can open single uploads is held off only by the
one share of the site itself.
"""

from __future__ import annotations

from collections.abc import Callable

from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.guarantee import Observer
from privagg.privacy.unit import Custody, Unit

ONE_UNIT = {
    Unit.RECORD: "a person has at most one record, at one site",
    Unit.SITE: "a site takes part under one name; that it does is public, and what may be absent "
    "is its data, not its share of the noise",
    Unit.PERSON: "a person takes part through one client; that the client does is public, and what "
    "may be absent is its data, not its share of the noise",
}
HONEST_SITE = "the site itself runs the plan as it stands"
UNBROKEN = "the encryption is unbroken (computational)"
MASKS_UNBROKEN = (
    "X25519, AES-256 and SHA-256, which the masks rest on, are unbroken (computational)"
)
STORES_KEPT = (
    "no honest site's store, which binds a round to one list of contributors, is set back to an "
    "older copy"
)
HONEST_ENCRYPTION = (
    "no contributor sends a ciphertext that is made up or made from others' ciphertexts (it could "
    "put digits of the key into the opened sum, or cancel other contributions)"
)
HONEST_ENCRYPTION_1 = (
    "no colluding contributor sends a ciphertext that is made up or made from others' ciphertexts "
    "(it could reveal the key or cancel other contributions)"
)
"""What plans of version 1 say, which holds too little: one site needs no one else for it."""
HONEST_ADDER = "the aggregator adds honestly (strict mode removes this)"
HONEST_ADDER_OF_MASKS = "the aggregator adds honestly"
CSPRNG = "the operating system's random generator is sound"
UNTIMED = (
    "when a site answers, and so whether it is late, tells nothing about its records (training "
    "takes longer the more are sampled)"
)
UNTIMED_SLOTS = (
    "when a site answers, and so whether it is late, tells nothing about its records (a round runs "
    "a public number of batches, however many records are sampled)"
)
UNTIMED_SUMS = "when a site answers, and so whether it is late, tells nothing about its records"
INDEPENDENT = (
    "a record's gradient does not depend, to the last bit, on the records beside it in a batch "
    "(tested, not proved)"
)
EXACT_PRODUCTS = (
    "products of the site's float64 numbers are IEEE 754's: a record's integers then follow from "
    "that record alone (proved for engine exact-dense, its premise tested before training)"
)
AT_MOST_DECLARED = (
    "the site has no more records than it declared, with or without the one that is hidden"
)


ALONE = "a record's integers follow from that record and public facts alone (tested, not proved)"
SUMS_REST_ON = (ONE_UNIT[Unit.RECORD], HONEST_SITE, CSPRNG, UNTIMED_SUMS, ALONE)
"""What every row of a plan of sums over records rests on."""

PERSONAL_UNCHARGED = (
    "nothing is charged for a site's own model, which stays at the site; whoever is served it sees "
    "what no noise hides"
)

SHARD_ALONE = (
    "a shard's votes follow from that shard's records, random numbers of its own and public facts "
    "alone (tested, not proved)"
)
SHARDS_REST_ON = (ONE_UNIT[Unit.RECORD], HONEST_SITE, CSPRNG, UNTIMED_SUMS, SHARD_ALONE)
"""What every row of a round over shards rests on."""


def rests_on(unit: Unit, *, in_slots: bool, engine: object = None) -> tuple[str, ...]:
    """What every row of a plan rests on; plans of version 1 keep their own text.

    Args:
        unit: whose presence is hidden.
        in_slots: as for `own_noise_observers`.
        engine: how records' gradients are clipped, as the plan's recipe has it.
    """
    if unit is not Unit.RECORD:
        return (ONE_UNIT[unit], HONEST_SITE, CSPRNG, UNTIMED)
    placed = (UNTIMED_SLOTS, AT_MOST_DECLARED) if in_slots else (UNTIMED,)
    apart = EXACT_PRODUCTS if engine == "exact-dense" else INDEPENDENT
    return (ONE_UNIT[unit], HONEST_SITE, CSPRNG, *placed, apart)


def _attested(shares: int) -> tuple[str, ...]:
    if shares <= 1:
        return ()
    return (
        f"{shares - 1} other site{'s' if shares > 2 else ''} added the planned noise "
        "(attested, not provable)",
    )


def shared_noise_observers(
    event_of_shares: Callable[[int], DpEvent],
    *,
    survivors: int,
    custody: Custody,
    colluders: int,
    protects: bool,
    strict: bool,
    always: tuple[str, ...],
    honest: str = HONEST_ENCRYPTION,
) -> tuple[Observer, ...]:
    """One row for every observer and every number of colluding sites.

    Args:
        event_of_shares: the round's event when that many noise shares stay unknown.
        survivors: m, opened contributions.
        custody: who can open sums.
        colluders: sites that the plan lets collude.
        protects: False for the plaintext oracle, under which the aggregator reads single uploads.
        strict: whether the key holder adds again.
        always: what every row rests on.
        honest: what a row of ciphertexts asks of those who made them; of masks nothing is asked.
    """
    masked = custody is Custody.EVERY_SITE
    honest_adder = HONEST_ADDER_OF_MASKS if masked else HONEST_ADDER
    adder = () if strict or not protects else (honest_adder,)
    hidden = (MASKS_UNBROKEN, STORES_KEPT) if masked else (UNBROKEN, honest)
    single = event_of_shares(1)
    rows: list[Observer] = []

    def row(name: str, k: int, sees: str, event: DpEvent, *extra: str) -> None:
        assumptions = (*always, *extra)
        rows.append(
            Observer(name=name, colluding_sites=k, sees=sees, event=event, assumptions=assumptions)
        )

    for k in range(survivors):
        event, attested = event_of_shares(survivors - k), _attested(survivors - k)
        whose = "one colluder" if k == 1 else f"{k} colluders"
        sees = "every opened sum" if k == 0 else f"opened sums less the shares of {whose}"
        row("model-users" if k == 0 else "sites", k, sees, event, *attested, *adder)
        reads_single = not protects or (custody is Custody.SITES and k > 0)
        reads_single = reads_single or (masked and k > colluders)
        if reads_single:
            row("aggregator", k, "this site's own upload in the clear", single)
        else:
            shown = "masked uploads" if masked else "ciphertexts"
            row("aggregator", k, f"{shown} and {sees}", event, *attested, *hidden, *adder)
        if custody is Custody.AUTHORITY:
            if strict:  # every upload comes along, and the key holder can decrypt each
                row("key-holder", k, "this site's own upload, which it can decrypt", single)
            else:
                row("key-holder", k, sees, event, *attested, UNBROKEN, *adder)
            row("aggregator+key-holder", k, "this site's own upload in the clear", single)
    return tuple(rows)


def personal_observer() -> Observer:
    """The row of a plan under which a part of the model stays at its site, without noise."""
    return Observer(
        name="personal",
        colluding_sites=0,
        sees="this site's own model, or what it predicts, where the site serves it",
        event=DpEvent.once(Mechanism(kind="non-private")),
        assumptions=(PERSONAL_UNCHARGED,),
    )


def own_noise_observers(
    event: DpEvent,
    *,
    survivors: int,
    unit: Unit,
    custody: Custody,
    in_slots: bool,
    engine: object = None,
) -> tuple[Observer, ...]:
    """Rows for a plan under which every site's upload is private by its own noise alone.

    Args:
        event: the round's, the same for every observer.
        survivors: m, opened contributions; up to m - 1 of them may collude.
        unit: whose presence is hidden.
        custody: who can open sums.
        in_slots: whether sampled records lie in a public number of random slots, as they do from
            plans of version 2 on.
        engine: as for `rests_on`.
    """
    names = ["aggregator"]
    if custody is Custody.AUTHORITY:
        names += ["key-holder", "aggregator+key-holder"]
    return tuple(
        Observer(
            name=name,
            colluding_sites=k,
            sees="at most this site's own noised update",
            event=event,
            assumptions=rests_on(unit, in_slots=in_slots, engine=engine),
        )
        for k in range(survivors)
        for name in ("model-users" if k == 0 else "sites", *names)
    )
