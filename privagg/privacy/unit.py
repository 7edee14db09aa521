"""What is protected, from whom, and who can open a sum: the vocabulary of every guarantee."""

from __future__ import annotations

from enum import Enum


class Unit(str, Enum):
    """Whose presence or absence the guarantee hides."""

    RECORD = "record"
    SITE = "site"
    PERSON = "person"


class Custody(str, Enum):
    """Who can open the sum. A required setting; it stands in every report.

    `authority`: a key holder apart from the aggregator. `sites`: every site holds the key.
    `every-site`: nobody does; the contributors open a sum together. The scheme says so.
    """

    AUTHORITY = "authority"
    SITES = "sites"
    EVERY_SITE = "every-site"

    @property
    def plainly(self) -> str:
        """What the choice means, in plain words for a report."""
        if self is Custody.AUTHORITY:
            return (
                "A key holder apart from the aggregator can open sums. Aggregator and key holder "
                "together could read single contributions; then only each site's own share of "
                "the noise protects them."
            )
        if self is Custody.EVERY_SITE:
            return "Nobody holds a key: contributors open a sum together."
        return (
            "Every site holds the key. One site together with the aggregator could read every "
            "other site's single contributions; then only each site's own share of the noise "
            "protects them."
        )
