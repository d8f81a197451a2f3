# A compute box: computes and aggregates what is open, then ends.  Cron or a Kubernetes CronJob starts it again.
# docs/containers.md says how it is built, configured, stopped and watched.
# LOCKS="runtime service torch training" makes an image for the service, its workers and training jobs.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
ARG LOCKS=runtime
COPY locks/ locks/
RUN python -m venv /build/tools && \
    /build/tools/bin/pip install --quiet --no-deps --require-hashes -r locks/uv.txt -r locks/build.txt
RUN python -m venv --without-pip /opt/hathi && \
    for lock in $LOCKS; do set -- "$@" "locks/$lock.txt"; done && \
    /build/tools/bin/uv pip sync --quiet --python /opt/hathi/bin/python --require-hashes "$@"
COPY pyproject.toml README.md LICENSE ./
COPY config/ config/
COPY docs/ docs/
COPY hathi/ hathi/
COPY pipeline/ pipeline/
COPY proto/ proto/
COPY sample/ sample/
RUN /build/tools/bin/uv build --quiet --wheel --offline --no-build-isolation --python /build/tools/bin/python \
    --out-dir dist . && \
    /build/tools/bin/uv pip install --quiet --offline --no-deps --python /opt/hathi/bin/python dist/*.whl

FROM ${PYTHON}
COPY --from=build /opt/hathi /opt/hathi
RUN useradd --system --uid 10001 --home-dir /var/lib/hathi --create-home hathi
ENV PATH=/opt/hathi/bin:$PATH HATHI_CONFIG=/etc/hathi/compute.toml
USER 10001
WORKDIR /var/lib/hathi
# Every stage runs once on the sample: an image in which a library cannot be loaded is not built.
RUN hathi sample /tmp/sample --minutes 0 && rm -r /tmp/sample
# State and logs lie here, and the file state/ESTOP stops what runs.
VOLUME ["/var/lib/hathi"]
# An Alert makes the container unhealthy, a Warning does not.  It needs a shell:
# hadolint ignore=DL3025
HEALTHCHECK --interval=5m --timeout=30s --start-period=1m CMD hathi health; test $? -lt 2
ENTRYPOINT ["hathi"]
CMD ["run", "--once"]
