# What the scheduled tasks of a stack run (infra/schedule.py). Build it where policy.toml stands, as it is copied in:
#
#   docker build --platform linux/amd64 --build-arg PYTHON=python:3.11-slim@sha256:... --tag REPOSITORY .
#
# The digest of the base makes the same image again. If backups are sealed with GPG, or boot_command of the policy needs
# programs of Debian, name them: --build-arg PACKAGES="gnupg".
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /srv/bloom-dr
RUN python -m venv .venv
COPY requirements-image.lock ./
RUN .venv/bin/python -m pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-image.lock
COPY pyproject.toml README.md LICENSE tasks.py policy.toml ./
COPY runbooks/ runbooks/
RUN .venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --editable .
RUN .venv/bin/python -m compileall -q runbooks tasks.py

FROM ${PYTHON}
ARG PACKAGES=""
RUN test -z "${PACKAGES}" || (apt-get update && apt-get install --yes --no-install-recommends ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*)
# The root file system is read-only when it runs. What is written goes to /scratch, a volume that this user owns.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /scratch bloom-dr \
    && install --directory --owner 10001 --group 10001 --mode 0711 /scratch
COPY --from=build /srv/bloom-dr /srv/bloom-dr
ENV HOME=/scratch \
    TMPDIR=/scratch \
    BLOOM_DR_RUNS=/scratch/runs \
    BLOOM_DR_SANDBOX=/scratch/sandbox \
    LANG=C.UTF-8 \
    PATH=/srv/bloom-dr/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/bloom-dr
USER 10001:10001
VOLUME /scratch
ENTRYPOINT ["/srv/bloom-dr/.venv/bin/python", "-m", "runbooks.cli.container"]
CMD ["--list"]
