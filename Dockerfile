# One image for the run and for the service; docs/service.md shows both commands.
FROM python:3.13-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

COPY requirements.lock /build/
RUN ["python", "-m", "pip", "install", "--require-hashes", "-r", "/build/requirements.lock"]

COPY . /build/
RUN ["python", "-m", "pip", "install", "--no-deps", "--no-build-isolation", "/build"]

# Caches lie where every user may write: the container may run as the owner of the mounted folder.
ENV HOME=/var/cache/segmentation \
    NUMBA_CACHE_DIR=/var/cache/segmentation/numba \
    MPLCONFIGDIR=/var/cache/segmentation/matplotlib
RUN useradd --uid 1000 --no-create-home --home-dir $HOME segmentation \
    && mkdir -p $NUMBA_CACHE_DIR $MPLCONFIGDIR /srv/segmentation/outputs \
    && python -c "from segmentation.clustering import null; null.warm_up()" \
    && chown -R segmentation /srv/segmentation \
    && chmod -R a+rwX $HOME

USER segmentation
WORKDIR /srv/segmentation
VOLUME ["/srv/segmentation/outputs"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s --interval=30s --timeout=10s \
    CMD ["python", "-c", "from urllib import request; request.urlopen('http://localhost:8000/health', timeout=8)"]
ENTRYPOINT ["segmentation"]
CMD ["--help"]
