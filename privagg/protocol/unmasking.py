"""The coordinator's half of an opening that the contributors make together.

Nobody holds a key. The coordinator shows every contributor the list: the signed statements of all
uploads in the sum. Where somebody who was asked is missing from it, they first consent to it, each
to one list a round. Then they release what takes the masks off the sum of exactly these uploads.
Every answer is signed over the list's digest, so that whoever says something else is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from privagg.digest import canonical_json
from privagg.errors import MessageError, OpeningRefusedError, PrivaggError
from privagg.identity.keys import Roster
from privagg.protocol.aggregator import FRAME_OVERHEAD_BYTES
from privagg.protocol.frames import Message, read_message, read_statement
from privagg.protocol.job import OPENING_TRIES, Job, RoundOutcome
from privagg.protocol.key_parts import split_key_parts
from privagg.protocol.messages import (
    Consent,
    Opening,
    OpenRequest,
    Refusal,
    Release,
    ReleaseRequest,
    Statement,
    list_digest,
)
from privagg.protocol.transport import Transport
from privagg.secure import facts as fact
from privagg.secure.scheme import Unmasked
from privagg.secure.wire import EncryptedTensor

Answer = TypeVar("Answer", Consent, Release)


class Unmasking:
    """One opening, from its request on; the same request makes the same opening again.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        result: of the round; gets who answered what else than it was asked.
        request: the frame that the journal keeps: list, sum and attachments.

    Attributes:
        consents, answers: site -> its signed answer to this list.

    Raises:
        MessageError: the request is not this coordinator's.
        CohortError: the list must not be opened.
    """

    def __init__(
        self, job: Job, transport: Transport, result: RoundOutcome, request: bytes
    ) -> None:
        message = read_message(request, Roster.of(job.identity))
        header = message.header
        if not isinstance(header, OpenRequest):
            raise MessageError(f"a {type(header).__name__} asks for no opening")
        self._job, self._transport, self._result = job, transport, result
        self._planned = job.plan.in_round(result.round)
        self._sha256 = hashlib.sha256(request).hexdigest()
        self._contributions = header.contributions
        self._digest = list_digest(header.contributions)
        self.listed = tuple(
            read_statement(each, job.roster).sender for each in header.contributions
        )
        summed, parts = split_key_parts(
            job.parameters, len(self.listed), memoryview(message.payload).cast("B")
        )
        self._sum = EncryptedTensor.from_bytes(summed, max_bytes=summed.nbytes)
        recovery = job.recovery(result)
        if recovery is None:
            raise OpeningRefusedError(f"scheme {job.scheme.name!r} has no masks to take off")
        self._recovery = recovery
        # A release holds less than a site attached, and its header the list's names.
        self._limit = job.parameters.attachment_bytes + FRAME_OVERHEAD_BYTES
        self._limit += len(canonical_json(self.listed))
        self._found: tuple[int, Unmasked] | None = None
        for site, part in zip(self.listed, parts, strict=True):
            self._recovery.add(site, part)
        self._recovery.require_list(self.listed)
        self.consents = dict[str, Message]()
        self.answers = dict[str, Message]()

    @property
    def releases(self) -> tuple[Statement, ...]:
        """What sites signed as they released."""
        return tuple(answer.statement for answer in self.answers.values())

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Everything that sites signed of this list."""
        return (*(consent.statement for consent in self.consents.values()), *self.releases)

    def agree(self) -> None:
        """Have the contributors consent to the list, where they have to.

        Raises:
            OpeningRefusedError: too few do.
        """
        if not self._recovery.needs_consent(self.listed):
            return
        needed = self._planned.minimum_survivors
        self._ask(Consent, self.consents, (), lambda: len(self.consents) >= needed)
        if len(self.consents) < needed:
            raise self._refusal(
                f"{len(self.consents)} of {len(self.listed)} contributors consent to the list of "
                f"whose uploads are in the sum; {needed} have to"
            )

    def open(self) -> Message:
        """Have the sum unmasked; the coordinator's statement of it, the integers as its payload.

        Raises:
            OpeningRefusedError: too few release, or what they release does not unmask the sum.
        """
        self._ask(
            Release,
            self.answers,
            tuple(consent.statement for consent in self.consents.values()),
            lambda: self._unmask().total is not None,
        )
        found = self._unmask()
        for site, why in found.wrong.items():
            self._result.refuse(site, why)
            self._job.convicted.setdefault(site, why)
        if found.total is None:
            self._job.failures.update(found.doubted)
            raise self._refusal(found.problem)
        job, parameters = self._job, self._job.parameters
        opening = Opening(
            **job.heading(self._result),
            key_id=job.key_id,
            request_sha256=self._sha256,
            contributors=self.listed,
        )
        share = fact.share_from(found.total, parameters.requirement, len(self.listed))
        for site in self.answers.keys() - found.wrong.keys():
            job.failures.pop(site, None)
        made = Message.sign(job.identity, opening, share)
        self._result.answer = made.to_bytes()
        return made

    def _unmask(self) -> Unmasked:
        """What the releases give that came so far."""
        if self._found is None or self._found[0] != len(self.answers):
            with self._result.timed("open"):
                given = {site: answer.payload for site, answer in self.answers.items()}
                found = self._recovery.unmask(self._sum.payload, self.listed, given)
            self._found = len(given), found
        return self._found[1]

    def _ask(
        self,
        kind: type[Answer],
        answers: dict[str, Message],
        consents: tuple[Statement, ...],
        enough: Callable[[], bool],
    ) -> None:
        """Ask whoever has not answered, the same each time, until there is enough."""
        self._result.opening_asked = True
        try:
            self._ask_until(kind, answers, consents, enough)
        finally:
            self._job.failures.update(name for name in self.listed if name not in answers)

    def _ask_until(
        self,
        kind: type[Answer],
        answers: dict[str, Message],
        consents: tuple[Statement, ...],
        enough: Callable[[], bool],
    ) -> None:
        refused = set[str]()
        for _ in range(OPENING_TRIES):
            silent = [name for name in self.listed if name not in answers and name not in refused]
            if not silent:
                return
            self._result.exchanges += 1
            for reply in self._transport.exchange(self._requests(silent, kind, consents)):
                if reply.data is None:
                    continue
                try:
                    answers[reply.party] = self._read(reply.party, reply.data, kind)
                except PrivaggError as error:
                    refused.add(reply.party)
                    self._result.refuse(reply.party, f"{type(error).__name__}: {error}")
            if enough():
                return

    def _requests(
        self, sites: Sequence[str], kind: type[Answer], consents: tuple[Statement, ...]
    ) -> dict[str, bytes]:
        """What each is asked; where nothing is sealed for it alone, all are asked in one frame."""
        job = self._job
        header = ReleaseRequest(
            **job.heading(self._result),
            key_id=job.key_id,
            contributions=self._contributions,
            consents=consents,
        )
        if kind is Consent:
            return dict.fromkeys(sites, Message.sign(job.identity, header).to_bytes())
        packets = {site: self._recovery.packets(site, self.listed) for site in sites}
        signed = Message.sign_each(job.identity, header, packets)
        return {site: message.to_bytes() for site, message in signed.items()}

    def _read(self, site: str, data: bytes, kind: type[Answer]) -> Message:
        """An answer, if it is that site's to this very list."""
        job, result = self._job, self._result
        message = read_message(data, job.roster, max_bytes=self._limit)
        header = message.header
        if isinstance(header, Refusal) and header.sender == site:
            raise OpeningRefusedError(f"{site!r} refuses to open: {header.message}")
        if not isinstance(header, kind) or header.sender != site:
            raise MessageError(f"{site!r} answered with a {type(header).__name__}")
        said = (header.round_id, header.plan_digest, header.key_id)
        if said != ((job.run, result.round, result.attempt), job.plan.digest, job.key_id):
            raise MessageError(f"{site!r} answered for another round, plan or key")
        if (header.list_digest, header.contributors) != (self._digest, self.listed):
            raise MessageError(f"{site!r} signed another list of contributors than the one shown")
        return message

    def _refusal(self, problem: str) -> OpeningRefusedError:
        """The sum is not opened: why, by whom, and whether the round may be tried again.

        Whoever released contributes to no further attempt. Where consents bind too, or too few
        would be left, nobody is asked again, as that would be charged and could open nothing.
        """
        job = self._job
        again = job.may_be_tried_again(self._result.round, self.answers)
        self._result.opening_asked = not again
        if again:
            chance = "a new attempt may be made (training.retries), charged again"
        elif job.parameters.binds_by_consent:
            chance = "under this rule a consent binds a site's round, so there is no new attempt"
        else:
            chance = (
                f"{len(self.answers)} released and contribute to no further attempt; of the others "
                "there are too few"
            )
        return OpeningRefusedError(f"{problem}{self._told()}; {chance}")

    def _told(self) -> str:
        """Who answered nothing, or something else."""
        missing = [name for name in self.listed if name not in self.answers | self.consents]
        told = {name: self._result.refusals.get(name, "no answer") for name in missing}
        return "".join(f"; {name}: {why}" for name, why in told.items())
