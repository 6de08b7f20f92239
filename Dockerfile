# Two stages: what builds stays behind. Versions and digests are those of requirements.lock, which every wheel has to match.

FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/parley
COPY requirements.lock ./
RUN /opt/parley/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY protocol protocol
COPY supervisor supervisor
COPY store store
COPY actors actors
COPY gateway gateway
COPY bench bench
RUN /opt/parley/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.12-slim
# The embedded PostgreSQL refuses to run as root; a user with a fixed number makes the volume's ownership predictable.
RUN groupadd --gid 10001 parley \
    && useradd --uid 10001 --gid parley --home-dir /var/lib/parley --create-home --shell /usr/sbin/nologin parley
COPY --from=build /opt/parley /opt/parley
ENV PATH=/opt/parley/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PARLEY_HOST=0.0.0.0 \
    PARLEY_PORT=8080 \
    PARLEY_DATA_DIR=/var/lib/parley/data \
    PARLEY_LOG_FORMAT=json
USER parley
RUN mkdir -p /var/lib/parley/data
VOLUME /var/lib/parley/data
EXPOSE 8080
# Ready, not merely alive: webhooks would be acknowledged.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PARLEY_PORT\"]}/health/ready', timeout=2)"]
# PostgreSQL is stopped in order by SIGTERM; give it longer than PARLEY_DRAIN_SECONDS (docker stop --time 30).
STOPSIGNAL SIGTERM
ENTRYPOINT ["parley"]
CMD ["serve"]
