# edged in a container: any role, by the file that is mounted at /etc/edged/edged.toml.
#
#   docker build -t edged .                      # or: buildah bud --format docker -t edged . (OCI's has no health checks)
#   docker run -d --name pop --network host --ulimit nofile=262144 \
#     -v "$PWD/pop.toml:/etc/edged/edged.toml:ro" -v "$PWD/tls:/etc/edged/tls:ro" -v edged-state:/var/lib/edged edged
#   docker exec pop edged streams
#
# Keys that are mounted must be readable by user 10001. In a network of its own (without --network host) metrics.listen
# has to be "0.0.0.0:9464" for a scraper outside. The root file system may be read-only, with a tmpfs at /run/edged.
# It adds some 260 MB to Python's image: FFmpeg's libraries are 107 of them, numpy and HiGHS, which IRS plans with, 84.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The package's build brings hls.js by npm and compiles the cores.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev npm && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md ./
COPY edged ./edged
# Without hls.js in the package the watch page would load it from a CDN, without what is compiled all would take up to
# twice the CPU: not in this image.
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels . \
 && python -m zipfile -l /wheels/edged-*.whl | grep vendor/hls.min.js
# The place that systemd's unit has too, without pip: nothing is installed in a running container.
RUN python -m venv --without-pip /opt/edged \
 && python -m pip --python /opt/edged/bin/python install --no-cache-dir --no-index --find-links /wheels edged \
 && /opt/edged/bin/python -c 'import edged.native, edged.runtime.fast, edged.wire.h2.fast, edged.wire.rtmp.fast; assert edged.native.in_use()'

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="edged" \
      org.opencontainers.image.description="The edge of a live-streaming network" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes --root-user-action ignore setuptools wheel pip \
 && groupadd --system --gid 10001 edged \
 && useradd --system --uid 10001 --gid edged --home-dir /var/lib/edged --no-create-home --shell /usr/sbin/nologin edged \
 && install -d -o edged -g edged -m 0750 /run/edged /var/lib/edged /etc/edged
COPY --from=build /opt/edged /opt/edged
ENV PATH=/opt/edged/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/edged
VOLUME ["/var/lib/edged"]
# RTMP and RTMPS, HTTP and HTTPS, the backbone at an origin, IRS, metrics.
EXPOSE 1935 1936 8080 8443 7410 1940 9464
STOPSIGNAL SIGTERM
# The first start waits for IRS and origins; a PoP that has lost them all is unhealthy, and goes on serving.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["edged", "health"]
ENTRYPOINT ["edged"]
CMD ["run", "-c", "/etc/edged/edged.toml"]
