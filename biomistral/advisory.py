"""The research-only notice that travels with every model, report and generated text."""

from __future__ import annotations

ADVISORY = (
    "Research use only. These models have not been evaluated for clinical use and must not be "
    "used to make or support decisions about the care of patients. Their answers can be wrong, "
    "outdated or biased, and wrong with confidence. Any medical question belongs with a "
    "qualified professional."
)
