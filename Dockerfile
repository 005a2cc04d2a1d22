# syntax=docker/dockerfile:1

# The Kafka client, SQLite and zstd are C, and are built from source: the image has what they need.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p pipeline-app \
    && cp target/release/pipeline-app /usr/local/bin/

# The same Debian as above: the program uses its C library.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin app \
    && install --directory --owner=app --group=app /data
COPY --from=build /usr/local/bin/pipeline-app /usr/local/bin/
USER app
WORKDIR /data
ENV DATA_DIR=/data UI_BIND=0.0.0.0:8088
VOLUME /data
EXPOSE 8088
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["pipeline-app", "health"]
ENTRYPOINT ["pipeline-app"]
