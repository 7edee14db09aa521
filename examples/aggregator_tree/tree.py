"""A tree of aggregators: two regions add their own sites' uploads, a root adds the regions' sums.

Run it with `python examples/aggregator_tree/tree.py`. It shows the aggregation alone: the vectors
are made up, nothing is trained, and no noise is added.
"""

from __future__ import annotations

import numpy as np

from privagg.digest import tree_digest
from privagg.identity.keys import Identity, Roster
from privagg.protocol.aggregator import Aggregator, RoundTerms
from privagg.protocol.frames import Message
from privagg.protocol.messages import Upload
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import EncryptionKey, Requirement
from privagg.secure.wire import EncryptedTensor, contributor_bitmap

REGIONS = {"north": ("anna", "bert", "carl"), "south": ("dora", "emil")}
SITES = tuple(site for sites in REGIONS.values() for site in sites)
LENGTH = 1000


def upload(identity: Identity, values: np.ndarray, terms: RoundTerms, key: EncryptionKey) -> bytes:
    """What a site sends: its vector, encrypted, labelled and signed."""
    parameters, payload = key.parameters, key.encrypt(values)
    tensor = EncryptedTensor(
        scheme=parameters.scheme,
        parameters_fingerprint=parameters.fingerprint,
        length=LENGTH,
        packing=parameters.packing,
        contributors=contributor_bitmap([SITES.index(identity.name)], len(SITES)),
        roster_size=len(SITES),
        payload=memoryview(payload),
    )
    header = Upload(
        run=terms.run,
        round=terms.round,
        attempt=terms.attempt,
        sender=identity.name,
        plan_digest=terms.plan_digest,
        key_id=key.key_id,
        key_part_digest=tree_digest(parameters.key_part(payload)),
        receipt_hash="",
        checkpoint="",
        generator="made up",
        noise_stddev_grid="0",
    )
    return Message.sign(identity, header, tensor.to_bytes()).to_bytes()


def main() -> np.ndarray:
    """Add everybody's vector through the tree; return the opened sum, int64 (LENGTH,)."""
    chosen = scheme("bfv")
    parameters = chosen.choose_parameters(Requirement(LENGTH, 1000, 1000 * len(SITES), len(SITES)))
    key = key_generator(chosen.name).generate_key(parameters)
    identities = {name: Identity.generate(name) for name in (*SITES, *REGIONS, "root")}
    roster = Roster.of(*identities.values())
    terms = RoundTerms(
        run="tree",
        round=1,
        attempt=1,
        plan_digest="00" * 32,
        key_id=key.encryption_key.key_id,
        dimension=LENGTH,
        names=SITES,
        cohort=SITES,
        minimum_survivors=len(SITES),
        strict=False,
        aggregators=tuple(REGIONS),
    )

    root = Aggregator(terms, parameters, roster)
    for region, sites in REGIONS.items():
        regional = Aggregator(terms, parameters, roster)
        for site in sites:
            values = np.full(LENGTH, SITES.index(site) + 1, dtype=np.int64)
            regional.receive(upload(identities[site], values, terms, key.encryption_key))
        # The partial sum is as large as one upload and carries every site's signed statement.
        frame = regional.partial_sum(identities[region]).to_bytes()
        root.receive(frame)
        print(f"{region}: {len(sites)} uploads in one frame of {len(frame):,} bytes")

    request = root.open_request(identities["root"])
    whole = memoryview(request.payload)[: request.header.tensor_bytes]
    tensor = EncryptedTensor.from_bytes(whole, max_bytes=len(whole))
    share = key.open_share(tensor.payload, tensor.addends)
    total = chosen.combine(parameters, [share], tensor.addends)
    print(f"root: {', '.join(root.contributors)}; every coordinate sums to {total[0]}")
    return total


if __name__ == "__main__":
    main()
