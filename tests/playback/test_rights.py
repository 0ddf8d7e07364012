"""Protected channels over HTTP: each form of a token, what is refused, and what caches may keep."""

import gzip
import posixpath
import re
from collections.abc import Iterator
from urllib.parse import urljoin

import hypothesis
import pytest
from hypothesis import strategies as st
from msgspec import Struct
from structlog.testing import capture_logs

from edged.media.stream import StreamId
from edged.playback.hls import HlsService
from edged.playback.rights import COOKIES_MAX, WRONG_MAX, RightsGate, make_open
from edged.playback.token_keys import TokenKey, TokenKeys, import_key, sign_token
from edged.playback.waiting import Exchange
from edged.policy.playback_rights import FORMS, Form, PlaybackRights, Refusal, RightsConfig
from edged.policy.rate_limit import parse_networks
from edged.wire.prepared import PreparedResponse
from edged.wire.request import RequestReceived
from tests.playback import test_h2_connection as h2_tests
from tests.playback.fakes import PARTS, Answer, Client, Origin, World, world
from tests.wire.mpd_schema import check_mpd

NOW = 1_700_000_000.0
SECRET = b"put-at-least-32-characters-of-chance-here"
KEY = import_key("HS256", SECRET)
WINDOW_S = 30.0
SKEW_S = 10.0
MASTER = "/live/demo/master.m3u8"
MEDIA = "/live/demo/1f/v0.m3u8"
PART = "/live/demo/1f/v0-1.3.m4s"


def token(
    channels: object = "demo", expires_s: float = 60.0, key_id: str = "a", **more: object
) -> str:
    claims: dict[str, object] = {"channels": channels, "exp": NOW + expires_s, **more}
    return sign_token(claims, KEY, algorithm="HS256", key_id=key_id)


def rights(
    channels: tuple[str, ...] = ("demo",), key_id: str = "a", **keys: object
) -> PlaybackRights:
    config = RightsConfig(channels=channels, clock_skew_s=SKEW_S, **keys)  # type: ignore[arg-type]
    return PlaybackRights(config, TokenKeys({key_id: TokenKey("HS256", KEY)}).verify)


class Edge(Struct):
    """An edge with one live channel behind the gate."""

    world: World
    service: HlsService
    gate: RightsGate
    origin: Origin
    unix: list[float]
    run: StreamId

    def push(self) -> None:
        self.service.window_updated(self.run, self.origin.both())
        self.world.pump.flush()

    def get(self, target: str, fields: str = "", peer: str = "192.0.2.1:1") -> Answer:
        client = self.client(peer)
        client.ask(target, fields=fields)
        (answer,) = client.answers()
        return answer

    def client(self, peer: str = "192.0.2.1:1") -> Client:
        client = self.world.client()
        client.connection.peer = peer
        return client

    def later(self, s: float) -> None:
        self.unix[0] += s


@pytest.fixture
def edge() -> Iterator[Edge]:
    unix = [NOW]
    with world() as made:
        run = StreamId(channel="demo", publication=0x1F)
        service = HlsService(
            lookup={"demo": run}.get,
            subscribe=lambda _: None,
            unsubscribe=lambda _: None,
            now=made.pump.now,
        )
        gate = RightsGate(
            made.server,
            service,
            proxies=parse_networks(["10.0.0.0/8"]),
            unix_now=lambda: unix[0],
            window_s=lambda: WINDOW_S,
        )
        edge = Edge(made, service, gate, Origin(), unix, run)
        made.client().ask(MASTER)
        service.window_updated(run, edge.origin.start())
        for _ in range(2 * PARTS):
            edge.push()
        gate.use(rights())
        yield edge


def shown(form: Form, text: str, path: str = MASTER) -> tuple[str, str]:
    """A request's target and fields that show a token in a form."""
    if form == "query":
        return f"{path}?token={text}", ""
    if form == "path":
        return f"/t/{text}{path}", ""
    if form == "header":
        return path, f"Authorization: Bearer {text}\r\n"
    return path, f"Cookie: a=b; edged_token={text}\r\n"


def refused(answer: Answer) -> tuple[int, str]:
    """Status and reason of a refusal: plain text that a player's page may read, not for caches."""
    assert answer.fields["cache-control"] == "no-store"
    assert answer.fields["access-control-allow-origin"] == "*"
    assert answer.fields["content-type"].startswith("text/plain")
    assert ("www-authenticate" in answer.fields) is (answer.status == 401)
    return answer.status, answer.body.decode().strip()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_plays_from_the_playlist_to_the_media(edge: Edge, form: Form) -> None:
    """A player that resolves relative URLs, and sends its fields with each request."""
    target, fields = shown(form, token())
    master = edge.get(target, fields)
    assert master.status == 200
    media_uri = re.findall(r"^[^#].*$", master.body.decode(), re.MULTILINE)[0]
    media_target = urljoin(target, media_uri)
    media = edge.get(media_target, fields)
    assert media.status == 200
    for uri in re.findall(r'URI="([^"]+)"', master.body.decode()):
        assert edge.get(urljoin(target, uri), fields).status == 200
    names = re.findall(r'#EXT-X-(?:MAP|PART):.*?URI="([^"]+)"', media.body.decode())
    reports = re.findall(r'#EXT-X-RENDITION-REPORT:URI="([^"]+)"', media.body.decode())
    assert names
    assert reports
    for uri in (names[0], names[-1], *reports):
        answer = edge.get(urljoin(media_target, uri), fields)
        assert answer.status == 200, (media_target, uri)
        assert answer.fields["cache-control"].startswith("private, max-age=")
        assert answer.fields["vary"].endswith("authorization, cookie")
    assert media.fields["vary"] == "accept-encoding, authorization, cookie"
    for answer in (master, media):
        assert answer.fields["cache-control"].startswith("private, max-age=")


def test_without_a_token_nothing_is_played(edge: Edge) -> None:
    for target in (MASTER, MEDIA, PART, "/live/demo/1f/v0-1.m4s", "/live/demo/none", "/live/demo"):
        status, why = refused(edge.get(target))
        assert status == 401
        assert why == (
            "channel 'demo' is protected: show a token by one of query, path, header, cookie"
        )
    assert edge.get(MASTER).fields["www-authenticate"] == 'bearer realm="edged"'
    assert edge.get("/live/other/master.m3u8").status == 404


def test_query_of_a_part_is_not_carried_on(edge: Edge) -> None:
    """Players that set it on each request may; what they get is everybody's bytes."""
    assert edge.get(f"{MEDIA}?token={token()}").body == edge.get(f"/t/{token()}{MEDIA}").body
    blocking = f"{MEDIA}?_HLS_msn=1&_HLS_part=1&token={token()}"
    assert edge.get(blocking).status == 200


def test_all_tokens_share_what_is_kept(edge: Edge) -> None:
    """A token is not part of what an answer is found by: a thousand viewers cost one of each."""
    run = edge.service._channels["demo"].streams["1f"]
    for number in range(20):
        for form in FORMS:
            for path in (PART, "/live/demo/1f/v0-1.m4s", MEDIA):
                text = token(sub=f"{form}-{number}")
                assert edge.get(*shown(form, text, path)).status == 200
    assert set(run.ready) == {"v0-1.3.m4s", "v0-1.m4s"}
    playlist = run.playlists["v0"]
    assert len(playlist._responses) == len(playlist._bodies) == 1


def test_a_manifest_s_urls_carry_the_token_on(edge: Edge) -> None:
    text, path = token(), "/live/demo/manifest.mpd"
    answer = edge.get(f"{path}?token={text}")
    assert (answer.status, answer.fields["cache-control"]) == (200, "private, max-age=1")
    assert answer.fields["content-type"] == "application/dash+xml"
    assert check_mpd(answer.body) == []
    (place,) = re.findall(r"<Location>(.*)</Location>", answer.body.decode())
    assert urljoin(f"{path}?token={text}", place) == f"/t/{text}/live/demo/1f/manifest.mpd"
    for uri in re.findall(r'(?:initialization|media)="([^"]+)"', answer.body.decode()):
        found = urljoin(f"{path}?token={text}", uri).replace("$Number$", "0")
        assert edge.get(found).status == 200, found
    zipped = edge.get(f"{path}?token={text}", fields="Accept-Encoding: gzip\r\n")
    assert gzip.decompress(zipped.body) == answer.body
    assert refused(edge.get(f"{path}?token=x"))[0] == 401


def test_a_run_s_manifest_is_redirected_to_where_its_urls_inherit_the_token(edge: Edge) -> None:
    text, path = token(), "/live/demo/1f/manifest.mpd"
    answer = edge.get(f"{path}?token={text}")
    assert (answer.status, answer.fields["cache-control"]) == (307, "no-store")
    assert answer.fields["access-control-allow-origin"] == "*"
    (place,) = re.findall(r"it is at (\S+)", answer.body.decode())
    assert urljoin(f"{path}?token={text}", place) == f"/t/{text}{path}"
    assert answer.fields["location"] == place.lower()
    assert refused(edge.get(f"{path}?token=x"))[0] == 401
    odd = edge.get(f"/live/demo/%0d%0aSet-Cookie:%20a=b%c3%a4.mpd?token={text}")
    assert odd.status == 307
    assert odd.fields["location"].endswith("/live/demo/%0d%0aset-cookie%3a%20a%3db%c3%a4.mpd")
    assert "set-cookie" not in odd.fields


def test_carried_on_below_a_proxy_s_folder(edge: Edge) -> None:
    text = token()
    body = edge.get(f"{MASTER}?token={text}").body.decode()
    assert f"../../t/{text}/live/demo/1f/v0.m3u8" in body
    assert posixpath.normpath(f"/folder/live/demo/../../t/{text}") == f"/folder/t/{text}"


@pytest.mark.parametrize(
    ("made", "status", "why"),
    [
        (token("other"), 403, "the token is not for channel 'demo'"),
        (token(expires_s=-SKEW_S), 401, "the token expired at 2023-11-14T22:13:10Z"),
        (token(nbf=NOW + 11), 401, "the token begins at 2023-11-14T22:13:31Z"),
        (token(key_id="b"), 401, "the token's key (kid) 'b' is not known here"),
        (token(ip="192.0.2.2"), 403, "the token is not for address 192.0.2.1"),
        (token(aud="x"), 401, "the token is for another audience (aud)"),
        (token()[:-4] + "AAAA", 401, "the token's signature is not key 'a''s"),
        ("x", 401, "the token is no JWT: three parts of base64url with points between"),
    ],
)
def test_the_reason_is_said(edge: Edge, made: str, status: int, why: str) -> None:
    for form in FORMS:
        answer = edge.get(*shown(form, made))
        assert refused(answer) == (status, why)
        if status == 401:
            error = 'bearer realm="edged", error="invalid_token"'
            assert answer.fields["www-authenticate"] == error


def test_a_form_that_is_not_allowed_is_no_token(edge: Edge) -> None:
    for form in FORMS:
        allowed = tuple(other for other in FORMS if other != form)
        edge.gate.use(rights(forms=allowed))
        assert refused(edge.get(*shown(form, token())))[1].endswith(", ".join(allowed))


def test_the_viewer_s_address(edge: Edge) -> None:
    """The connection's own; what X-Forwarded-For says counts from our proxies alone."""
    text = token(ip="198.51.100.0/24")
    target, _ = shown("path", text)
    forwarded = "X-Forwarded-For: 198.51.100.7\r\n"
    assert edge.get(target, peer="198.51.100.9:1").status == 200
    assert edge.get(target, forwarded, peer="192.0.2.1:1").status == 403
    assert edge.get(target, forwarded, peer="10.0.0.1:1").status == 200
    assert edge.get(f"/t/{text}{PART}", peer="198.51.100.9:1").status == 200
    assert edge.get(f"/t/{text}{PART}", peer="192.0.2.1:1").status == 403, "it must not stand"


def test_the_viewer_s_address_of_ipv6(edge: Edge) -> None:
    text = token(ip="2001:db8:1::/48")
    target, _ = shown("path", text)
    forwarded = "X-Forwarded-For: 2001:db8:1::7\r\n"
    assert edge.get(target, peer="[2001:db8:1::9]:443").status == 200
    assert edge.get(target, peer="[2001:db8:2::9]:443").status == 403
    assert edge.get(target, forwarded, peer="[2001:db8:2::9]:443").status == 403
    assert edge.get(target, forwarded, peer="10.0.0.1:1").status == 200


def test_several_cookies(edge: Edge) -> None:
    def ask(*texts: str) -> int:
        pairs = "; ".join(f"edged_token={text}" for text in texts)
        return edge.get(MASTER, f"Cookie: {pairs}\r\n").status

    bad = ["x"] * COOKIES_MAX
    assert ask("x", token("other"), token()) == 200
    assert ask(*bad[1:], token()) == 200
    assert ask(*bad, token()) == 401, "no more of them are looked at"
    assert ask(token("other")) == 403
    assert edge.get(MASTER, f'Cookie: edged_token="{token()}"\r\n').status == 200


def test_playlists_end_with_the_token_and_media_a_window_later(edge: Edge) -> None:
    viewer = edge.client()
    text = token(expires_s=60)

    def ask(path: str) -> int:
        viewer.ask(f"/t/{text}{path}")
        (answer,) = viewer.answers()
        return answer.status

    edge.later(60 + SKEW_S - 0.1)
    assert (ask(MASTER), ask(MEDIA), ask(PART)) == (200, 200, 200)
    edge.later(0.1)
    assert (ask(MASTER), ask(MEDIA), ask(PART)) == (401, 401, 200)
    edge.later(WINDOW_S)
    assert (ask(MASTER), ask(MEDIA), ask(PART)) == (401, 401, 401)
    assert viewer.lost is None
    assert edge.gate.statistics().verified_total == 1


def test_a_blocked_request_is_answered(edge: Edge) -> None:
    viewer = edge.client()
    viewer.ask(f"/t/{token()}{MEDIA}?_HLS_msn=2&_HLS_part=0")
    hinting = edge.client()
    hinting.ask(f"/t/{token()}/live/demo/1f/v0-2.0.m4s")
    assert viewer.answers() == hinting.answers() == []
    edge.push()
    for client in (viewer, hinting):
        (answer,) = client.answers()
        assert answer.status == 200
        assert answer.fields["cache-control"] == "private, max-age=24"


def test_who_waits_for_a_channel_gets_a_playlist_with_the_own_token(edge: Edge) -> None:
    edge.gate.use(rights(("*",)))
    run = StreamId(channel="later", publication=1)
    edge.service._lookup = {"later": run}.get
    texts = [token("later", sub=name) for name in "ab"]
    clients = [edge.client() for _ in texts]
    for client, text in zip(clients, texts, strict=True):
        client.ask(f"/live/later/master.m3u8?token={text}")
        assert client.answers() == []
    origin = Origin()
    edge.service.window_updated(run, origin.start())
    for _ in range(2 * PARTS):
        edge.service.window_updated(run, origin.both())
        edge.world.pump.flush()
    for client, text in zip(clients, texts, strict=True):
        (answer,) = client.answers()
        assert f"/t/{text}/live/later/1/v0.m3u8" in answer.body.decode()
    assert edge.gate.statistics().granted_total == 2, "waiting counts once"


def test_rights_come_and_go_live(edge: Edge) -> None:
    """Nobody is disconnected, no answer is kept from before, and no URL ceases to work."""
    viewer = edge.client()
    text = token()

    def ask(path: str) -> tuple[int, str]:
        viewer.ask(path)
        (answer,) = viewer.answers()
        return answer.status, answer.fields["cache-control"]

    assert ask(f"/t/{text}{PART}") == (200, "private, max-age=24")
    edge.gate.use(make_open())
    assert edge.world.server._services[0] == ("/live/", edge.service), "the gate costs nothing"
    for path in (PART, f"/t/{text}{PART}", "/t/x" + PART, PART, PART):
        assert ask(path) == (200, "max-age=24")
    assert ask(MEDIA) == (200, "max-age=2")
    edge.gate.use(rights())
    for path, status in ((PART, 401), (f"/t/{text}{PART}", 200), (f"/t/x{PART}", 401)):
        assert ask(path)[0] == status
    assert ask(f"/t/{text}{MEDIA}") == (200, "private, max-age=2")
    assert viewer.lost is None


def test_keys_are_rotated_without_a_disconnect(edge: Edge) -> None:
    viewer, old, new = edge.client(), token(key_id="a"), token(key_id="b")

    def ask(text: str) -> int:
        viewer.ask(f"/t/{text}{PART}")
        (answer,) = viewer.answers()
        return answer.status

    assert (ask(old), ask(new)) == (200, 401)
    key = TokenKey("HS256", KEY)
    both = TokenKeys({"a": key, "b": key}).verify
    edge.gate.use(PlaybackRights(RightsConfig(channels=("*",)), both))
    assert (ask(old), ask(new)) == (200, 200)
    edge.gate.use(rights(key_id="b"))
    assert (ask(old), ask(new)) == (401, 200)
    assert viewer.lost is None


def test_channels_that_are_not_protected_are_everybody_s(edge: Edge) -> None:
    edge.gate.use(rights(("other",)))
    for target in (MASTER, MEDIA, PART):
        answer = edge.get(target)
        assert answer.status == 200
        assert "private" not in answer.fields["cache-control"]
        assert edge.get(target, "Authorization: Bearer x\r\n").body == answer.body
        assert edge.get(f"/t/x{target}").body == answer.body
    assert edge.gate.statistics().refused_total == {}


@pytest.mark.parametrize(
    "target", ["/t/", "/t/x", "/t/x/", "/t/x/y", "/t//live", "/t/x/watch/demo"]
)
def test_nothing_else_is_below_a_token(edge: Edge, target: str) -> None:
    answer = edge.get(target)
    assert (answer.status, answer.fields["cache-control"]) == (404, "no-store")


def test_a_token_twice_in_the_path_does_not_pass(edge: Edge) -> None:
    assert edge.get(f"/t/{token()}/t/{token()}{MASTER}").status == 404
    for target in ("/live//demo/master.m3u8", "/live/./demo/master.m3u8", "/live/Demo/master.m3u8"):
        assert edge.get(target).status == 404
    assert edge.get("/live/dem%6f/master.m3u8").status == 401


def test_preflights_name_the_field(edge: Edge) -> None:
    client = edge.client()
    client.ask(MASTER, "OPTIONS", "Access-Control-Request-Headers: authorization\r\n")
    (answer,) = client.answers()
    assert answer.status == 200
    assert "authorization" in answer.fields["access-control-allow-headers"].split(", ")


def test_head_and_conditions(edge: Edge) -> None:
    client = edge.client()
    target = f"{MASTER}?token={token()}"
    client.ask(target, "HEAD")
    (answer,) = client.answers(head=True)
    assert answer.status == 200
    tag = answer.fields["etag"]
    client.ask(target, fields=f"If-None-Match: {tag}\r\n")
    (answer,) = client.answers()
    assert answer.status == 304
    client.ask(target, "HEAD", "Authorization: Bearer x\r\n")
    client.ask(MASTER, "HEAD")
    assert [answer.status for answer in client.answers(head=True)] == [200, 401]


def test_the_log_says_why_and_is_not_flooded(edge: Edge) -> None:
    with capture_logs() as logs:
        for _ in range(5):
            edge.get(MASTER)
        edge.world.pump.time += 1
        edge.get(MASTER, "Authorization: Bearer secret-text\r\n")
    told = [line for line in logs if line["event"] == "viewer refused"]
    assert [(line["code"], line["others_since"]) for line in told] == [
        ("missing", 0),
        ("malformed", 4),
    ]
    assert "secret-text" not in str(logs)


def test_an_address_may_show_so_many_wrong_tokens(edge: Edge) -> None:
    """Who has a good one that is known goes on, as does everybody else; a minute later all do."""
    good = token()
    assert edge.get(f"/t/{good}{PART}").status == 200
    for number in range(WRONG_MAX):
        edge.later(0.001)
        assert edge.get(f"/t/x{number}{PART}").status == 401
    answer = edge.get(f"/t/y{PART}")
    assert (answer.status, answer.fields["retry-after"]) == (429, "60")
    assert edge.get(f"/t/{token(sub='new')}{PART}").status == 429
    assert edge.get(f"/t/{good}{PART}").status == 200
    assert edge.get(f"/t/x{WRONG_MAX - 1}{PART}").status == 401, "it is known, and costs nothing"
    assert edge.get(f"/t/{token(sub='new')}{PART}", peer="192.0.2.2:1").status == 200
    edge.later(70)
    assert edge.get(f"/t/{token(expires_s=100)}{PART}").status == 200


def test_at_another_address(edge: Edge) -> None:
    """As the API has it: absolute paths, which carry on what the query showed."""

    class Elsewhere:
        def respond(
            self, request: RequestReceived, exchange: Exchange, now: float
        ) -> PreparedResponse | None:
            found = edge.gate.respond_master("demo", request, exchange, now)
            assert not isinstance(found, Refusal)
            return found

    edge.world.server.mount("/x/", Elsewhere())
    text = token()
    assert f"\n/t/{text}/live/demo/1f/v0.m3u8" in edge.get(f"/x/?token={text}").body.decode()
    bearer = edge.get("/x/", f"Authorization: Bearer {text}\r\n")
    assert "\n/live/demo/1f/v0.m3u8" in bearer.body.decode()
    assert bearer.fields["cache-control"].startswith("private")


def test_over_http_2(edge: Edge) -> None:
    client = h2_tests.Client(edge.world)
    client.connection.peer = "192.0.2.1:1"
    text = token()
    assert client.get(MASTER).status == 401
    assert client.get(PART, authorization=f"Bearer {text}").status == 200
    assert client.get(PART, cookie=f"edged_token={text}").status == 200
    assert client.get(f"/t/{text}{PART}").status == 200
    assert client.get(f"{MASTER}?token={text}").status == 200
    client.close()


SEGMENTS = st.sampled_from(
    ["", ".", "..", "t", "live", "demo", "1f", "master.m3u8", "v0-1.3.m4s", "x"]
)


@hypothesis.given(st.lists(SEGMENTS, max_size=8), st.sampled_from(["", "?token=x", "?token="]))
@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None
)
def test_no_path_leads_around_the_gate(edge: Edge, pieces: list[str], query: str) -> None:
    """Without a good token whatever path it is: nothing of the channel comes."""
    target = "/" + "/".join(pieces) + query
    assert edge.get(target).status in (401, 404)
