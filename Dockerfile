# The operator, and `scannerjob run`, with the drivers of PostgreSQL and MySQL.
#
#   docker build --tag scannerjob-operator:0.1.0 .
FROM python:3.13-slim AS build
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY operator operator
RUN python -m venv /opt/scannerjob \
    && /opt/scannerjob/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt '.[operator,postgresql,mysql]'

FROM python:3.13-slim
RUN useradd --uid 65532 --no-create-home --shell /usr/sbin/nologin scannerjob
COPY --from=build /opt/scannerjob /opt/scannerjob
ENV PATH=/opt/scannerjob/bin:$PATH PYTHONUNBUFFERED=1
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
ENTRYPOINT ["scannerjob"]
CMD ["operator"]
