"""A PoP's numbers of its publishers and links, as they are shown."""

from pathlib import Path

from edged.roles.pop_metrics import SPECS
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import KEY, configure, raw_network, running


async def test_its_numbers(tmp_path: Path) -> None:
    configs = [configure(raw) for raw in raw_network(tmp_path)]
    async with running(*configs) as network:
        async with encoder(network.rtmp(), "wrong-key") as peer:
            await peer.refused()
        async with encoder(network.rtmp(), KEY) as peer:
            await peer.accepted()
            text = network.process.metrics.render().decode()
    assert 'edged_ingest_refused_total{role="pop west"} 1.0' in text
    assert 'edged_ingest_accepted_total{role="pop west"} 1.0' in text
    assert 'edged_backbone_sessions{origin="fra1",role="pop west"} 4.0' in text
    assert 'edged_backbone_forwardings{origin="fra1",role="pop west"} 1.0' in text
    told = {spec.name for spec in SPECS if spec.name in text}
    assert {spec.name for spec in SPECS} - told <= {"edged_backbone_rtt_seconds"}
