"""How much of each origin is kept for partners: what those will need who may come meanwhile.

    coming = partners who come before the leases that are planned now are renewed
    kept of all origins together = coming + DEVIATIONS * sqrt(coming), and one of each

A part of each origin, whatever comes, would leave slots idle while others are turned away. A
partner goes where there is room, so the deviations are those of all of them together; each origin
keeps its part of it by the partners that are there.
"""

import math
from collections.abc import Sequence

from edged.policy.lease_shares import share_out

DEVIATIONS = 4.0  # More than so many beyond those expected come in 3 of 100,000 cases.


def keep_for_partners(
    slots: Sequence[int], partners: Sequence[int], coming: float, *, fraction_max: float
) -> list[int]:
    """Units to keep at each origin, at most this fraction of its slots.

    `partners`: units of theirs at each now. `coming` 0: nothing is known yet; then it is the most.
    """
    most = [math.ceil(total * fraction_max) for total in slots]
    if coming <= 0 or not any(partners):
        return most
    wanted = min(math.ceil(coming + DEVIATIONS * math.sqrt(coming)), sum(most))
    shares = share_out(wanted, partners)
    return [min(at_most, 1 + share) for at_most, share in zip(most, shares, strict=True)]
