"""A status as a running edged would give it."""

from edged.roles.status import (
    HealthSeen,
    IrsLinkSeen,
    IrsOriginSeen,
    IrsPopSeen,
    IrsSeen,
    LinkSeen,
    OriginHere,
    OriginSeen,
    PeerSeen,
    PopSeen,
    ProcessSeen,
    RoleSeen,
    RoutedStream,
    RouteSeen,
    RoutesSeen,
    RuleSeen,
    Status,
    StreamSeen,
    TotalsSeen,
    TrackSeen,
    WarningSeen,
)

IRS = IrsLinkSeen(connected=True, for_s=90.0)
NO_IRS = IrsLinkSeen(connected=False, for_s=12.0)
VIDEO = TrackSeen(
    kind="video", codec="h264", codec_string="avc1.64001f", width=1280, height=720, fps=30.0,
    sample_rate=0, channels=0,
)  # fmt: skip
ROUTE = RouteSeen(
    pop="west", origin="fra1", address="192.0.2.1:7410", rule="nearest", matched="",
    table_version=42, why="fra1 is the nearest origin whose lease has room", passed={},
    state="open", accepted=True, for_s=60.0, lag_units=0, units_skipped=0, received_seq=9,
    packaged_seq=7,
)  # fmt: skip
ORIGIN = OriginSeen(
    origin="fra1", address="192.0.2.1:7410", state="up", blocked="", table_state="up",
    heartbeat_state="up", slots_total=40, slots_free=37, quota=20, used=3, price_ms=0.3,
    rtt_ms=7.1, domain="", nearness=1,
)  # fmt: skip
LINK = LinkSeen(
    origin="fra1", address="192.0.2.1:7410", sessions=["basic", "control", "partner", "affiliate"],
    sessions_wanted=4, down="", rtt_ms=7.1, forwardings=3, subscriptions=2, out_bps=18.2e6,
    in_bps=5e6, units_skipped=0, reconnects=1,
)  # fmt: skip
PEER = PeerSeen(pop="lhr", sessions=4, streams=2, in_bps=1e6, out_bps=2e6)
HERE = OriginHere(
    origin="fra9", role="origin fra9", state="up", slots_total=500, slots_used=3, streams=3,
    parts_total=9, window_bytes=1, irs=IRS, pops=[PEER],
)  # fmt: skip
LONG_GOP = WarningSeen(
    code="long_gop",
    severity="warning",
    text="Your keyframe interval is 8.3 s: viewers wait long when they join. Set it to 2 s.",
    for_s=5.0,
)


def stream(
    channel: str = "alice",
    *,
    warnings: tuple[WarningSeen, ...] = (),
    jitter_ms: float | None = None,
) -> StreamSeen:
    return StreamSeen(
        channel=channel, title="Alice, live", state="live", role="pop west", publication="abc",
        home_epoch=1, priority="basic", came_from="rtmp 10.0.0.7:50112", encoder="OBS",
        live_s=3725.0, tracks=[VIDEO], ring_bytes=2**20, ring_s=3.9, viewers=1234,
        viewers_at={"pop west": 1234}, origin="fra1", route=ROUTE,
        health=HealthSeen(
            fps=29.97, bitrate_bps_2s=6.1e6, bitrate_bps_60s=6e6, gop_s=2.0, jitter_ms=jitter_ms,
            warnings=list(warnings),
        ),
        bitrate_kbps_history=[6000] * 30, viewers_history=[1234] * 30,
    )  # fmt: skip


def pop(
    name: str = "west", *, irs: IrsLinkSeen = IRS, links: tuple[LinkSeen, ...] = (LINK,)
) -> PopSeen:
    return PopSeen(
        pop=name, role=f"pop {name}", publishers=3, accepted_total=4, refused_total=1, viewers=7,
        viewer_connections=9, channels_watched=2, in_bps=18e6, out_bps=42e6, table=(5, 42),
        table_age_s=0.8, lease_left_s=9.2, irs=irs, links=list(links), origins=[ORIGIN],
    )  # fmt: skip


def status(
    streams: tuple[StreamSeen, ...] = (stream(),),
    *,
    pops: tuple[PopSeen, ...] = (pop(),),
    matching: int | None = None,
    warnings: int = 0,
) -> Status:
    irs = IrsSeen(
        role="irs", epoch=5, version=42, plans=42, nacks=0, push_delay_ms=1.0,
        pops=[
            IrsPopSeen(
                pop="west/1", connected=True, arrivals_per_s=0.1, streams={"fra1": 3},
                rtt_ms={"fra1": 7.1}, acked=(5, 42),
            )
        ],
        origins=[
            IrsOriginSeen(
                origin="fra1", address="192.0.2.1:7410", connected=True, state="up",
                slots_total=40, slots_free=37,
            )
        ],
    )  # fmt: skip
    return Status(
        at=1.79e9,
        process=ProcessSeen(
            version="0.1.0", pid=4242, uptime_s=3725.0, cpu_share=0.21, rss_bytes=300 * 2**20,
            fds=110, fds_max=20_000,
        ),
        totals=TotalsSeen(
            streams=len(streams), viewers=1234, in_bps=18.2e6, out_bps=421e6, lag_ms_max=2.4,
            warnings=warnings, warned_streams=warnings,
        ),
        roles=[
            RoleSeen(role="irs", kind="irs"),
            RoleSeen(role="origin fra9", kind="origin", connections=8, lag_ms=1.0),
            *(
                RoleSeen(
                    role=each.role, kind="pop", connections=16, lag_ms=2.4,
                    lag_ms_history=[1.0, 20.0, 5.0] * 10, streams=3, units_per_s=231.0,
                )
                for each in pops
            ),
        ],
        pops=list(pops),
        origins=[HERE],
        irs=[irs],
        streams=list(streams),
        streams_matching=len(streams) if matching is None else matching,
    )  # fmt: skip


def routes(*, irs: IrsLinkSeen = IRS, table: tuple[int, int] | None = (5, 42)) -> RoutesSeen:
    return RoutesSeen(
        pop="west", table=table, table_age_s=0.8, lease_left_s=9.2, irs=irs, origins=[ORIGIN],
        rules=[
            RuleSeen(label="the final", match={"glob": "final*"}, does="prefer fra1", placed=2)
        ],
        streams=[RoutedStream(channel="alice", route=ROUTE)],
        streams_total=3,
    )  # fmt: skip
