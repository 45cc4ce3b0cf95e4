# The operator, and `scannerjob run`, with the drivers of PostgreSQL and MySQL.
#
#   docker build --tag scannerjob-operator:0.1.0 .
#
# What is installed is pinned by constraints.txt, and the base image by the digest of its index, which
# has all architectures. For a newer one: --build-arg PYTHON=python:3.13-slim
ARG PYTHON=python:3.13.15-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${PYTHON} AS build
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY operator operator
# Without pip: what is copied from here can install nothing. What pip builds the wheel with is pinned
# by the environment, which --constraint does not reach: by the one name up to pip 25, then the other.
RUN python -m venv --without-pip /opt/scannerjob \
    && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt python -m pip \
        --python /opt/scannerjob/bin/python install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt '.[operator,postgresql,mysql]'

FROM ${PYTHON}
# The base's own pip, and what makes it anew: nothing is left that installs or builds packages.
RUN python -m pip uninstall --yes --root-user-action ignore pip setuptools wheel \
    && rm -rf /usr/local/lib/python3*/ensurepip
RUN useradd --uid 65532 --no-create-home --shell /usr/sbin/nologin scannerjob
COPY --from=build /opt/scannerjob /opt/scannerjob
ENV PATH=/opt/scannerjob/bin:$PATH PYTHONUNBUFFERED=1
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
ENTRYPOINT ["scannerjob"]
CMD ["operator"]
