# Two images from one build: `--target web` (HTTP face) and `--target worker` (runs the jobs).
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
RUN python -m venv /opt/modelpress
COPY constraints.txt ./
RUN /opt/modelpress/bin/pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
      --no-deps "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md ./
COPY app app
COPY worker worker
RUN /opt/modelpress/bin/pip install --constraint constraints.txt '.[postgres,s3]'

FROM python:3.11-slim-bookworm AS runtime
RUN groupadd --system --gid 10001 modelpress \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin modelpress \
    && install -d -o modelpress -g modelpress -m 0700 /data
COPY --from=build /opt/modelpress /opt/modelpress
ENV PATH=/opt/modelpress/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MODELPRESS_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data

FROM runtime AS web
ENV MODELPRESS_HOST=0.0.0.0 MODELPRESS_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["python", "-m", "app.web"]

FROM runtime AS worker
# Not by the broker or the database: their loss must not end a worker that has a job.
HEALTHCHECK --interval=60s --timeout=10s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "find \"$MODELPRESS_DATA_DIR/worker.pulse\" -mmin -5 | grep -q ."]
CMD ["celery", "-A", "worker.broker", "worker", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
