# Hosted mode, not as root. To get a CPU build of torch (a tenth of the size), or another index:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=<index with CPU builds> -t blockviz .
# To run with a read-only root, the cache on a volume and a limit on memory:
#   docker run --read-only -v blockviz-cache:/home/blockviz/cache -m 4g -p 7860:7860 blockviz
FROM python:3.12-slim

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS

RUN useradd --create-home --uid 1000 blockviz
USER blockviz
ENV HOME=/home/blockviz \
    PATH=/home/blockviz/.local/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /home/blockviz/app

COPY --chown=1000:1000 requirements.txt .
RUN sed '/^# -- to test --/,$d' requirements.txt > ../runtime.txt \
    && pip install --user --no-cache-dir -r ../runtime.txt

COPY --chown=1000:1000 . .
RUN mkdir -p /home/blockviz/cache/temporary

ENV BLOCKVIZ_MODE=hosted \
    BLOCKVIZ_CACHE=/home/blockviz/cache \
    TMPDIR=/home/blockviz/cache/temporary \
    GRADIO_SERVER_NAME=0.0.0.0

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/', timeout=4)"]

CMD ["python", "app.py"]
