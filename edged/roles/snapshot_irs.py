"""Which IRS is active, by whose grants, and how much each knows of who is live: for people."""

from edged.irs.client import OriginClient, PopClient
from edged.irs.service import IrsService
from edged.roles.status import IrsSeatSeen, IrsSessionSeen, LiveCounts

CONFLICTS_SHOWN_MAX = 5


def describe_sessions(client: PopClient | OriginClient | None, now: float) -> list[IrsSessionSeen]:
    """A PoP's or an origin's sessions, one for each address that it is told of."""
    if client is None:
        return []
    grants = client.grants if isinstance(client, PopClient) else None
    active = "" if grants is None else grants.active(now)
    return [
        IrsSessionSeen(
            address=address,
            connected=address in client.sessions,
            active=None if grants is None else address == active,
            twin=client.twins.known.get(address, ""),
        )
        for address in client.config.addresses
    ]


def granted_epoch(client: PopClient | OriginClient | None, now: float) -> int | None:
    """The epoch that a PoP has granted; 0: none now; None: it needs to grant none."""
    grants = client.grants if isinstance(client, PopClient) else None
    if grants is None:
        return None
    return grants.epoch if grants.active(now) else 0


def describe_seat(service: IrsService) -> IrsSeatSeen:
    """What an IRS is among others."""
    seen = service.seat.status()
    return IrsSeatSeen(
        for_s=seen.for_s,
        leads=seen.leads,
        grants=seen.grants,
        majority=seen.majority,
        pops_known=seen.pops_known,
        pops_here=seen.pops_here,
        active_at=seen.active_at,
        taken_over=service.seat.claim.activations,
        state_problem=seen.state_problem,
    )


def describe_live(service: IrsService) -> LiveCounts:
    """How much it knows of who is live where; `edged live` has all of it."""
    board = service.live
    conflicts = board.conflicts()
    return LiveCounts(
        channels=len(board.registry),
        conflicts=len(conflicts),
        conflicts_first=conflicts[:CONFLICTS_SHOWN_MAX],
        partial=board.registry.unlisted(),
    )
