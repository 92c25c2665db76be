# One image for every process of mailrail: `docker run mailrail api`, `worker`, `migrate`, `simulator`, `doctor`, …

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The tools and the packages of production, each in the version and with the hashes of requirements.txt.
COPY pyproject.toml requirements.txt ./
RUN python3 -m venv /opt/tools \
    && sed -n '/^\(uv\|maturin\)==/,/[^\\]$/p' requirements.txt > tools.txt \
    && /opt/tools/bin/pip install --no-cache-dir --no-deps --require-hashes -r tools.txt \
    && /opt/tools/bin/uv pip compile --quiet pyproject.toml --constraint requirements.txt --generate-hashes \
       --python /usr/bin/python3 -o production.txt \
    && python3 -m venv /opt/mailrail \
    && /opt/mailrail/bin/pip install --no-cache-dir --no-deps --require-hashes -r production.txt

COPY Cargo.toml Cargo.lock README.md LICENSE ./
COPY .cargo .cargo
COPY rust rust
COPY benches benches
COPY python python
RUN /opt/tools/bin/maturin build --release --interpreter /usr/bin/python3 --out wheels \
    && /opt/mailrail/bin/pip install --no-cache-dir --no-deps wheels/*.whl

FROM debian:bookworm-slim
# The interpreter at the path where the environment was made.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data mailrail \
    && install -d -o mailrail -g mailrail /data /data/simulator
COPY --from=build /opt/mailrail /opt/mailrail
ENV PATH=/opt/mailrail/bin:$PATH PYTHONUNBUFFERED=1
USER mailrail
WORKDIR /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["mailrail"]
CMD ["settings"]
