"""The fuzz targets' names, for who must not import them yet; `targets` checks them."""

NAMES = (
    *("amf", "flv", "codecs", "rtmp", "twins", "packaged"),
    *("link", "origin", "uplink", "irs", "table", "splice"),
    *("http", "h1", "reload", "admin"),
    *("api", "keys", "callback"),
    *("h2", "tokens", "probes"),
)
# Behind them stands a connection that is none, which the compiled form does not take.
PURE = ("origin", "uplink", "http")
