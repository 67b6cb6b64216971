"""A mesh of real processes under seeded faults, reconciled to the billionth of a dollar."""
