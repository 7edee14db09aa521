"""One party on one machine: its folder, its keys, its owner's approvals, and how it is opened."""
